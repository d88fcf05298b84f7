"""One generation: members trained together on all data so far, the hopeless ones dropped on the way.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943), with two differences: who goes is decided by a
statistical bound and not by rank, and members far above the smallest that seems to hold the threshold go as well, since
they will not be chosen; environments and updates go to those near the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from policykd.learn.methods.distill import shard_data
from policykd.learn.rounds.states import Fresh, LearningState, start
from policykd.learn.rounds.trace import trace_round
from policykd.learn.setup.session import Session
from policykd.learn.updates.update import UpdateMetrics
from policykd.search.choosing import LADDER, differences
from policykd.search.standing import Candidate, Standing, key_of
from policykd.spine.seeding import SeedKey
from policykd.students.spec import MemberSpec

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
TICKETS = 3
"""The last rounds of a generation, each of which gives every member a candidate."""
_RUNGS = (0.5, 0.75)  # of a generation's rounds: where members are judged and dropped
_OUT = 3.0  # standard errors below the threshold,
_ROOM = 0.1  # and this much more, since members still learn
_LARGER = 4.0  # times the parameters of the smallest promising member: not needed
_FALLBACKS = 3  # larger members that stay all the same


@dataclass(frozen=True)
class Plan:
    """Members of one generation; `first` is its first round, counted over the whole run."""

    number: int
    specs: tuple[MemberSpec, ...]
    first: int
    rounds: int

    @property
    def rungs(self) -> dict[int, int]:
        """Round of the run -> selection episodes after it."""
        return {self.first + int(part * self.rounds) - 1: LADDER[0] for part in _RUNGS if part * self.rounds >= 2}

    @property
    def end(self) -> int:
        """The round after its last."""
        return self.first + self.rounds


def opened(session: Session, plan: Plan, before: LearningState | None) -> LearningState:
    """The state at a generation's beginning: new members, and all data so far."""
    if before is None:
        state = start(session, plan.specs, plan.rounds)
    else:
        fresh = start(session, plan.specs, plan.rounds)
        state = replace(before, family=fresh.family, learner=fresh.learner, progress=[])
        assert state.normaliser is not None
        state.settle(state.normaliser)
        state.start_log_std(state.dataset.params)
    members = len(state.family)
    seats = _seats(members, session)
    state.crew = tuple(i * members // seats for i in range(seats))
    return state


def one_round(state: LearningState, standing: Standing, plan: Plan, index: int) -> None:
    """Collect, label, fit; judge where there is a rung. New members of a later generation first learn what is known."""
    session, work = state.session, state.session.work
    local = index - plan.first
    config = session.config
    visited = None
    fresh = Fresh([], [])
    if not (plan.number and not local):
        visited = shard_data(session, state, index, shown=(local, plan.rounds))
        inputs, labels, fresh = state.absorb(visited)
        state.keep(index, visited, inputs, labels)
    with work.stage("update", round=local, rounds=plan.rounds, total=state.learner.n_updates):
        metrics = state.learner.fit(state.dataset, local, SeedKey(config.seed, "update", index), work)
    metrics = [replace(m, update=m.update + plan.first * state.learner.n_updates) for m in metrics]
    if index in plan.rungs or index >= plan.end - TICKETS:
        for member in range(len(state.family)):
            standing.add(_candidate(state, member, index, fresh, metrics))
    if visited is not None:
        trace_round(session, state, index, visited, metrics, fresh)
    if index in plan.rungs:
        _rung(state, standing, plan, index)


def _candidate(
    state: LearningState, member: int, index: int, fresh: Fresh, metrics: Sequence[UpdateMetrics]
) -> Candidate:
    measured = {"train_kl": metrics[-1].loss[member]}
    for name, values in (("agreement", fresh.agreement), ("validation_kl", fresh.loss)):
        if values and not np.isnan(values[member]):
            measured[name] = values[member]
    return Candidate(state.family.specs[member], index, state.timesteps, state.student_now(member), measured)


def _rung(state: LearningState, standing: Standing, plan: Plan, index: int) -> None:
    session = state.session
    specs, n = state.family.specs, plan.rungs[index]
    means, errors = np.empty(len(specs)), np.empty(len(specs))
    local = index - plan.first
    with session.work.stage("select", round=local, rounds=plan.rounds, total=len(specs) * n):
        keys = [key_of(spec, index) for spec in specs]
        standing.play(keys, n)
        for i, key in enumerate(keys):
            means[i], errors[i] = differences(standing.judge(key, n), standing.demand.threshold)
    sizes = np.array([state.family.footprint(index).params for index in range(len(specs))])
    out, idle = hopeless(means, errors), needless(means, sizes)
    keep = [i for i in range(len(specs)) if not (out[i] or idle[i])]
    standing.dropped |= {specs[i] for i in np.flatnonzero(out)}
    standing.stopped |= {specs[i] for i in np.flatnonzero(idle & ~out)}
    if len(keep) < len(specs):
        state.shed(keep)
    order = {i: place for place, i in enumerate(keep)}
    seats = _seats(len(keep), session)
    state.crew = tuple(sorted(order[i] for i in nearest(means, errors, keep)[:seats]))


def hopeless(means: Floats, errors: Floats) -> Bools:
    """[S] who came nowhere near the threshold, but for the best few: there must be something to show."""
    best = np.argsort(-means, kind="stable")[:_FALLBACKS]
    out = means + _OUT * errors + _ROOM < 0
    out[best] = False
    return np.asarray(out)


def needless(means: Floats, sizes: NDArray[np.int64]) -> Bools:
    """[S] who is far larger than the smallest that seems to hold the threshold; the next few larger ones go on."""
    idle = np.zeros(len(sizes), np.bool_)
    promising = means >= 0
    if promising.any():
        smallest = sizes[promising].min()
        larger = np.flatnonzero(sizes > smallest)
        idle[larger] = sizes[larger] > _LARGER * smallest
        idle[larger[np.argsort(sizes[larger], kind="stable")][:_FALLBACKS]] = False
    return idle


def nearest(means: Floats, errors: Floats, keep: Sequence[int]) -> list[int]:
    """The members that stay, nearest to the threshold first."""
    return sorted(keep, key=lambda i: abs(float(means[i])) / float(errors[i]))


def _seats(members: int, session: Session) -> int:
    """How many of the members drive: as many as may, with evenly many environments each."""
    search, n_envs = session.config.search, session.config.rollout.n_envs
    assert search is not None and isinstance(n_envs, int)
    return max(k for k in range(1, min(search.drivers, n_envs, members) + 1) if n_envs % k == 0)
