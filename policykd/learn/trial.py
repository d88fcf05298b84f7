"""Episodes of teacher, student and random policy on the same seeds, played in blocks and kept on disk as they end."""

from __future__ import annotations

from typing import Any

import numpy as np

from policykd.evaluation.episodes import Episodes, policy_actor, random_actor, run_episodes
from policykd.evaluation.gate import Paired
from policykd.evaluation.watched import agreement_in, watched
from policykd.learn.session import Session
from policykd.spine.types import Array, Policy

_VISITED_FOR_AGREEMENT = 20_000


class Reference:
    """Returns of the teacher and of the random policy on seeds `first`, `first` + 1, ...: each is played once.

    `name` is that of the file in the run's checkpoints.
    """

    def __init__(self, session: Session, name: str, first: int, known: dict[str, list[float]] | None = None) -> None:
        self._session, self._name, self._first = session, name, first
        empty: dict[str, list[float]] = {"teacher": [], "random": []}
        self._known = session.folder.load_facts(name) or known or empty

    def on(self, seeds: range) -> tuple[Array, Array]:
        """(teacher, random) returns [E] on these seeds; the missing ones are played, in one block."""
        session, config = self._session, self._session.config
        for who, returns in self._known.items():
            missing = range(self._first + len(returns), seeds.stop)
            if missing:
                seed = block_seed(config.seed, len(returns))
                if who == "teacher":
                    actor = policy_actor(session.teacher, config.evaluate.deterministic, seed)
                else:
                    actor = random_actor(session.teacher.action_space, seed)
                returns.extend(run_episodes(session.spec, actor, missing, session.work).returns.tolist())
                session.folder.save_facts(self._name, self._known)
            else:
                session.work.advance(len(seeds))
        rows = slice(seeds.start - self._first, seeds.stop - self._first)
        return np.asarray(self._known["teacher"][rows]), np.asarray(self._known["random"][rows])


class Trial:
    """One student against the reference on fresh seeds; `name` is that of its file in the run's checkpoints."""

    def __init__(self, session: Session, student: Policy, name: str, first: int) -> None:
        self._session, self._student, self._name, self._first = session, student, name, first
        self.reference = Reference(session, f"{name}-reference", first)
        empty: dict[str, Any] = {"returns": [], "success": [], "agreement": []}
        self._known: dict[str, Any] = session.folder.load_facts(name) or empty

    def play(self, seeds: range) -> Paired:
        """The three returns on these seeds, the next in order."""
        teacher, random = self.reference.on(seeds)
        done = len(self._known["returns"])
        missing = range(self._first + done, seeds.stop)
        if missing:
            self._keep(*self._run(missing, block_seed(self._session.config.seed, done)))
        else:
            self._session.work.advance(len(seeds))
        rows = slice(seeds.start - self._first, seeds.stop - self._first)
        return Paired(teacher, np.asarray(self._known["returns"][rows]), random)

    @property
    def agreement(self) -> float:
        """With the teacher, on the states of the student's episodes; blocks count by their episodes."""
        values, weights = zip(*self._known["agreement"], strict=True)
        return float(np.average(values, weights=weights))

    @property
    def success(self) -> float | None:
        """The share of episodes that `info` calls a success; None when any does not say."""
        values = self._known["success"]
        return None if any(value is None for value in values) else float(np.mean(values))

    def _run(self, seeds: range, seed: int) -> tuple[Episodes, float]:
        session = self._session
        own = policy_actor(self._student, session.config.evaluate.deterministic, seed)
        actor = watched(own, session.teacher)
        episodes = run_episodes(session.spec, actor, seeds, session.work, keep_visited=_VISITED_FOR_AGREEMENT)
        return episodes, agreement_in(episodes, actor, session.teacher, self._student)

    def _keep(self, episodes: Episodes, agreement: float) -> None:
        known = self._known
        known["returns"].extend(episodes.returns.tolist())
        known["success"].extend(None if np.isnan(x) else float(x) for x in episodes.success)
        known["agreement"].append([agreement, len(episodes.returns)])
        self._session.folder.save_facts(self._name, known)


def block_seed(root: int, done: int) -> int:
    """The seed of a policy's draws in the block after `done` episodes: the run's own for the first."""
    return root + 1_000_003 * done
