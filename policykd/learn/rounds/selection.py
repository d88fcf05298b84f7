"""Choosing what to keep: the members' returns on the selection seeds after the last rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.learn.rounds.families import AnyFamily
from policykd.learn.setup.session import Session

if TYPE_CHECKING:
    from policykd.learn.rounds.states import LearningState


class Choice(NamedTuple):
    """A member as it was after a round."""

    round: int
    member: int


@dataclass
class Selection:
    """Mean selection return of each member [S] after each judged round, and the weights of those rounds."""

    returns: dict[int, list[float]] = field(default_factory=dict)
    snapshots: dict[int, Tensor] = field(default_factory=dict)

    def best(self, family: AnyFamily) -> Choice:
        """The highest mean return; among equals the smaller member, then the later round."""

        def rank(choice: Choice) -> tuple[float, int, int]:
            size = family.footprint(choice.member).params
            return self.returns[choice.round][choice.member], -size, choice.round

        return max((Choice(r, m) for r in self.returns for m in range(len(family))), key=rank)

    def best_of(self, member: int) -> Choice:
        """The member's best round."""
        return max((Choice(r, member) for r in self.returns), key=lambda c: (self.returns[c.round][member], c.round))


def judged(round_index: int, rounds: int) -> bool:
    """Whether members are judged after this round: in the last quarter, when the learning rate is low."""
    return round_index >= rounds - max(rounds // 4, 1)


def select(session: Session, state: LearningState, round_index: int, *, early: bool = False) -> None:
    """Runs the selection episodes of every member and keeps the weights of this round; where the run ends `early`,
    those that were best on held-out states."""
    config, work = session.config, session.work
    if early and state.held.best is not None:
        state.family.flat.copy_(state.held.best)
    elif not judged(round_index, config.rollout.rounds):
        return
    seeds = session.select_seeds
    selection, means = state.selection, []
    selection.snapshots[round_index] = state.family.flat.clone()
    with work.stage("select", round=round_index, rounds=config.rollout.rounds, total=len(state.family) * len(seeds)):
        for member in range(len(state.family)):
            student = state.student_of(round_index, member)
            actor = policy_actor(session.acting(student), config.evaluate.deterministic, config.seed)
            means.append(float(np.mean(run_episodes(session.spec, actor, seeds, work).returns)))
    selection.returns[round_index] = means
