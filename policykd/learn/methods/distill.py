"""On-policy distillation of a family: collect, label, aggregate, fit, choose.

Round 0 is driven by the teacher, later rounds by each member in its own environments (DAgger, Ross et al. 2011, with
beta = I(round = 0) by default); all members learn from all labelled states. Where it differs from the paper: the
targets are distributions (forward KL, Rusu et al. 2015) and not actions, the learner is not refitted from scratch
in every round but goes on, and the learning rate falls over the whole run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.learn.rounds.labels import beside
from policykd.learn.rounds.offline import no_states, stored_states
from policykd.learn.rounds.resuming import restore, save
from policykd.learn.rounds.selection import Selection, select
from policykd.learn.rounds.states import Fresh, LearningState, start
from policykd.learn.rounds.targets import family_loss, round_loss
from policykd.learn.rounds.trace import trace_round
from policykd.learn.setup.session import Session
from policykd.rollout.collect import Rollout, Shard, collect, label
from policykd.rollout.schedules import beta_schedule
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array
from policykd.students.student import Student

Rows = Callable[[Array], NDArray[Any]]


@dataclass(frozen=True)
class Distilled:
    """The chosen student, the member's index, and how the members stood on the selection seeds."""

    student: Student
    member: int
    selection: Selection
    timesteps: int


After = Callable[[LearningState, int, Fresh], None]
"""Told after a round, once its checkpoint is written."""


def distill(session: Session, after: After | None = None) -> Distilled:
    """Runs every round that is still to do, then gives the best member of the best round."""
    state = restore(session) or start(session)
    rounds = session.config.rollout.rounds
    for index in range(state.rounds_done, rounds):
        if state.held.over(session.config.update.patience):
            break
        fresh = one_round(session, state, index)
        if after is not None:
            after(state, index, fresh)
    chosen = state.selection.best(state.family)
    return Distilled(state.student_of(chosen.round, chosen.member), chosen.member, state.selection, state.timesteps)


def one_round(session: Session, state: LearningState, index: int) -> Fresh:
    """One collect-and-fit cycle, ending in a checkpoint; what the new states said of the members."""
    config, work = session.config, session.work
    rounds = config.rollout.rounds
    visited = shard_data(session, state, index)
    inputs, labels, fresh = state.absorb(visited)
    base = family_loss(config.loss, state.family.specs, masked=session.teacher.masked)
    state.learner.loss = round_loss(config.loss, base, (index, rounds), state.progress)
    with work.stage("update", round=index, rounds=rounds, total=state.learner.n_updates):
        dropped = state.keep(index, visited, inputs, labels)
        metrics = state.learner.fit(state.dataset, index, SeedKey(config.seed, "update", index), work)
    state.judge_held()
    early = state.held.over(config.update.patience)
    if early:
        work.tracker.note(
            f"the loss on held-out states was lowest in round {state.held.best_round}: the run ends with it"
        )
    if dropped and state.dataset.dropped == dropped:
        work.tracker.note(
            f"data.max_states {config.data.max_states} is reached: the oldest states are dropped from here on"
        )
    select(session, state, index, early=early)
    trace_round(session, state, index, visited, metrics, fresh)
    save(session, state, index)
    return fresh


def shard_data(
    session: Session, state: LearningState, index: int, shown: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """The round's labelled data: from the checkpoint when its collection had ended, else collected now. Of `data.dir`
    everything is there in round 0, and later rounds go on with it.

    `shown`: the round and their number as the user sees them, where they are not those of the run.
    """
    if session.config.data.dir is not None:  # nobody acts
        return stored_states(session, state.rows) if index == 0 else no_states(session, state.rows)
    stored = session.folder.load_shard(index)
    if stored is None:
        stored = _collect(session, state, index, shown or (index, session.config.rollout.rounds))
        session.folder.save_shard(index, stored)
    return {name: torch.from_numpy(value) for name, value in stored.items()}


def _collect(session: Session, state: LearningState, index: int, shown: tuple[int, int]) -> dict[str, NDArray[Any]]:
    config, work = session.config, session.work
    r = config.rollout
    assert isinstance(r.n_envs, int) and isinstance(r.n_steps, int)
    beta = beta_schedule(r.beta, r.rounds)(index)
    shard = Shard(SeedKey(config.seed, "collect", index), r.n_envs, r.n_steps, beta, r)
    with work.stage("collect", round=shown[0], rounds=shown[1], total=r.n_envs * r.n_steps):
        rollout = collect(shard, session.collecting, session.teacher, state.actors(r.n_envs), work)
    with work.stage("label", round=shown[0], rounds=shown[1]):
        tables = _sequences if config.student.kind == "gru" else _tables
        stored = tables(rollout, label(rollout, session.teacher, work), state.rows)
        if config.data.held_out:
            stored["env"] = np.nonzero(rollout.acting)[1].astype(np.int32)
        extra = beside(config, session.teacher, stored["params"], _by_teacher(rollout), index)
        return stored if extra is None else {**stored, "beside": extra}


def _by_teacher(rollout: Rollout) -> Array:
    """What the teacher saw of real decisions [M, *O], in the order of `_tables`."""
    seen, keep = rollout.observation if rollout.truth is None else rollout.truth, rollout.acting.reshape(-1)
    return seen.reshape(len(keep), *seen.shape[2:])[keep]


def _tables(rollout: Rollout, params: NDArray[np.float32], rows: Rows) -> dict[str, NDArray[Any]]:
    """Rows of real decisions: observation [M, F] as `rows` of the environment's, params [M, P], actor [M]; and the
    finished episodes."""
    keep = rollout.acting.reshape(-1)
    seen = rollout.observation.reshape(len(keep), *rollout.observation.shape[2:])[keep]
    return {
        "observation": rows(seen),
        "params": params.reshape(len(keep), -1)[keep],
        "actor": rollout.actor.reshape(-1)[keep],
        "returns": rollout.returns,
        "slot": rollout.slot,
    }


def _sequences(rollout: Rollout, params: NDArray[np.float32], rows: Rows) -> dict[str, NDArray[Any]]:
    """The same rows for students with a memory: one environment after the other, each in the order of its steps; and
    `start` [M], where an episode begins."""

    def turned(values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.swapaxes(values, 0, 1))

    acting, start = turned(rollout.acting), turned(rollout.start)
    start[:, 0] = True  # every shard starts at a reset
    by_env = replace(rollout, observation=turned(rollout.observation), acting=acting, actor=turned(rollout.actor))
    return {**_tables(by_env, turned(params), rows), "start": start.reshape(-1)[acting.reshape(-1)]}
