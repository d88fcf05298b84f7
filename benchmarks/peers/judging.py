"""The judge of every side: the same evaluator, the same seeds, off the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.peers.tasks import KEEP, Checkpoint, Race
from policykd.evaluation.episodes import policy_actor, random_actor, run_episodes
from policykd.learn.setup.session import Work
from policykd.rollout.envs import EnvSpec
from policykd.rollout.vecenv import Floats
from policykd.spine.stop import NeverStop
from policykd.spine.tracker import NullTracker
from policykd.spine.types import Policy
from policykd.teachers.base import Teacher

EPISODES, SCREEN = 50, 10
SELECT, CONFIRM = range(3_000_000, 3_000_000 + EPISODES), range(4_000_000, 4_000_000 + EPISODES)
HOPELESS = 0.8  # on the first ten selection seeds: the other forty are not played


@dataclass(frozen=True)
class Finish:
    """The first checkpoint that held on both sets of seeds, or the last one where `reached` is False."""

    reached: bool
    checkpoint: Checkpoint
    checks: int
    select: float
    confirm: float

    @property
    def seconds(self) -> float:
        """Infinite where it was not reached."""
        return self.checkpoint.seconds if self.reached else float("inf")

    @property
    def cpu(self) -> float:
        """The processor's share of it."""
        return self.checkpoint.cpu if self.reached else float("inf")


class Judge:
    """Retention of a student on fixed seeds, against the teacher's and the random policy's returns on the same."""

    def __init__(self, spec: EnvSpec, teacher: Teacher, episodes: int = EPISODES) -> None:
        self._spec, self._work, self._episodes = spec, Work(NullTracker(), NeverStop()), episodes
        chance = random_actor(teacher.action_space, 0)
        self._known = {
            seeds: (self.returns(teacher, seeds), run_episodes(spec, chance, seeds, self._work).returns)
            for seeds in (SELECT, CONFIRM)
        }

    def returns(self, policy: Policy, seeds: Sequence[int]) -> Floats:
        """Of one episode for each seed, acting by the mode."""
        return run_episodes(self._spec, policy_actor(policy, True, 0), seeds, self._work).returns

    def retention(self, policy: Policy, seeds: range, first: int | None = None) -> float:
        """On the first of SELECT or CONFIRM, by default as many as this judge plays."""
        first = first or self._episodes
        teacher, chance = (float(np.mean(known[:first])) for known in self._known[seeds])
        return float((self.returns(policy, seeds[:first]).mean() - chance) / (teacher - chance))

    def finish(self, race: Race, limit: float = float("inf")) -> Finish:
        """Judges every checkpoint until one holds on both sets of seeds, or `limit` seconds have passed."""
        found = None
        for checks, checkpoint in enumerate(race, 1):
            select = self.retention(checkpoint.student, SELECT, SCREEN)
            confirm = float("nan")
            if select >= HOPELESS and self._episodes > SCREEN:
                select = self.retention(checkpoint.student, SELECT)
            if select >= KEEP:
                confirm = self.retention(checkpoint.student, CONFIRM)
            found = Finish(confirm >= KEEP, checkpoint, checks, select, confirm)
            if found.reached or checkpoint.seconds > limit:
                break
        assert found is not None
        return found
