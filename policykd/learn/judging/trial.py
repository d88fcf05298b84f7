"""Episodes of teacher, student and random policy on the same seeds, played in blocks and kept on disk as they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policykd.evaluation.agreement import agreement_on
from policykd.evaluation.episodes import Episodes, policy_actor, run_episodes
from policykd.evaluation.gate import Paired
from policykd.evaluation.parallel import Job, Player, play
from policykd.evaluation.smoothness import share
from policykd.evaluation.watched import agreement_in, watched
from policykd.learn.setup.session import Session
from policykd.spine.files import sha256_of
from policykd.spine.types import Array, Policy, is_recurrent
from policykd.students.student import Student

_VISITED_FOR_AGREEMENT = 20_000  # of one call

Request = tuple[Job, Callable[[Episodes], None]]
"""Episodes to play, and what to do with them."""


def fulfil(session: Session, requests: Sequence[Request]) -> None:
    """Plays what is asked for, all together, on all cores."""
    for (_, keep), episodes in zip(
        requests, play(session.spec, [job for job, _ in requests], session.work), strict=True
    ):
        keep(episodes)


def player(session: Session, policy: Policy | None, done: int) -> Player:
    """A policy (None: the random one) of this run, from its episode `done` on."""
    config = session.config
    seed = config.seed + 1_000_003 * done
    return Player(policy, session.teacher.action_space, config.evaluate.deterministic, seed)


class Reference:
    """Returns of the teacher and of the random policy on seeds `first`, `first` + 1, ...: each is played once.

    `name` is that of the file in the run's checkpoints.
    """

    def __init__(self, session: Session, name: str, first: int, known: dict[str, list[float]] | None = None) -> None:
        self._session, self._name, self._first = session, name, first
        empty: dict[str, list[Any]] = {"teacher": [], "random": []}
        self._known: dict[str, list[Any]] = session.folder.load_facts(name) or known or empty

    def requests(self, stop: int) -> list[Request]:
        """What is missing below seed `stop`."""
        found: list[Request] = []
        for who in ("teacher", "random"):
            returns = self._known[who]
            missing = range(self._first + len(returns), stop)
            policy = self._session.teacher if who == "teacher" else None
            if missing:
                found.append((Job(player(self._session, policy, len(returns)), missing), self._keeper(who)))
        return found

    def on(self, seeds: range) -> tuple[Array, Array]:
        """(teacher, random) returns [E] on these seeds; missing ones are played."""
        missing = self.requests(seeds.stop)
        if missing:
            fulfil(self._session, missing)
        rows = slice(seeds.start - self._first, seeds.stop - self._first)
        return np.asarray(self._known["teacher"][rows]), np.asarray(self._known["random"][rows])

    @property
    def action_change(self) -> float | None:
        """How far the teacher's action moves in a step, over all episodes played here."""
        return _per_step(self._known)

    def _keeper(self, who: str) -> Callable[[Episodes], None]:
        def keep(episodes: Episodes) -> None:
            self._known[who].extend(episodes.returns.tolist())
            if who == "teacher":
                self._known.setdefault("change", []).append(_change(episodes))
            self._session.folder.save_facts(self._name, self._known)

        return keep


class Trial:
    """One student against the reference on fresh seeds; `name` is that of its file in the run's checkpoints."""

    def __init__(self, session: Session, student: Student, name: str, first: int) -> None:
        self._session, self._student, self._name, self._first = session, session.acting(student), name, first
        self.reference = Reference(session, f"{name}-reference", first)
        whose = sha256_of(b"".join(part.cpu().numpy().tobytes() for part in student.weights().values()))
        empty: dict[str, Any] = {"student": whose, "returns": [], "success": [], "agreement": []}
        known = session.folder.load_facts(name)
        self._known: dict[str, Any] = known if known and known["student"] == whose else empty

    def play(self, seeds: range) -> Paired:
        """The three returns on these seeds, the next in order."""
        session, done = self._session, len(self._known["returns"])
        missing = range(self._first + done, seeds.stop)
        requests = self.reference.requests(seeds.stop)
        if missing and (is_recurrent(session.teacher) or is_recurrent(self._student)):
            self._play_watched(missing)
        elif missing:
            job = Job(player(session, self._student, done), missing, _VISITED_FOR_AGREEMENT)
            requests.append((job, self._keep_compared))
        fulfil(session, requests)
        rows = slice(seeds.start - self._first, seeds.stop - self._first)
        teacher, random = self.reference.on(seeds)
        return Paired(teacher, np.asarray(self._known["returns"][rows]), random)

    @property
    def agreement(self) -> float:
        """With the teacher, on the states of the student's episodes; calls count by their episodes."""
        values, weights = zip(*self._known["agreement"], strict=True)
        return float(np.average(values, weights=weights))

    @property
    def success(self) -> float | None:
        """The share of episodes that `info` calls a success; None when any does not say."""
        values = self._known["success"]
        return None if any(value is None for value in values) else float(np.mean(values))

    @property
    def action_change(self) -> float | None:
        """How far the student's action moves in a step."""
        return _per_step(self._known)

    def _play_watched(self, seeds: range) -> None:
        """A policy with a memory must see the student's episodes as they run."""
        session = self._session
        config = session.config
        own = policy_actor(self._student, config.evaluate.deterministic, config.seed + seeds.start - self._first)
        actor = watched(own, session.teacher)
        episodes = run_episodes(session.spec, actor, seeds, session.work)
        self._keep(episodes, agreement_in(episodes, actor, session.teacher, self._student))

    def _keep_compared(self, episodes: Episodes) -> None:
        self._keep(episodes, agreement_on(self._session.teacher, self._student, episodes.visited, episodes.masks))

    def _keep(self, episodes: Episodes, agreement: float) -> None:
        known = self._known
        known["returns"].extend(episodes.returns.tolist())
        known["success"].extend(None if np.isnan(x) else float(x) for x in episodes.success)
        known["agreement"].append([agreement, len(episodes.returns)])
        known.setdefault("change", []).append(_change(episodes))
        self._session.folder.save_facts(self._name, known)


def _change(episodes: Episodes) -> list[float]:
    """How far actions moved, and in how many steps."""
    return [float(episodes.change.sum()), int((episodes.lengths - 1).sum())]


def _per_step(known: dict[str, list[Any]]) -> float | None:
    """None where no episode has two steps, and for what an older version played."""
    parts = known.get("change", [])
    return share(sum(total for total, _ in parts), sum(steps for _, steps in parts))
