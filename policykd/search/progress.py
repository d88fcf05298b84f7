"""What a search has reached, on disk after every round, restored bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from policykd.learn.rounds.resuming import load_shards
from policykd.learn.rounds.states import LearningState, start
from policykd.learn.setup.session import Session
from policykd.search.generation import Plan
from policykd.search.standing import Candidate, Standing, key_of
from policykd.spine.config.student import StudentConfig
from policykd.students.normaliser import Normaliser
from policykd.students.spec import MemberSpec, conv_of, kind_of


def save(state: LearningState, standing: Standing, plan: Plan, index: int) -> None:
    """The checkpoint after a round of the run."""
    assert state.normaliser is not None
    state.rounds_done = index + 1
    tensors = {f"learner.{name}": value.cpu().numpy() for name, value in state.learner.state().items()}
    tensors |= {"normaliser.mean": state.normaliser.mean, "normaliser.scale": state.normaliser.scale}
    for candidate in standing.candidates.values():
        tensors |= candidate.tensors()
    facts: dict[str, Any] = {
        "timesteps": state.timesteps,
        "updates": state.rounds_done * state.learner.n_updates,
        "normaliser_limit": state.normaliser.limit,
        "plan": {**vars(plan), "specs": [spec.row for spec in plan.specs]},
        "alive": [spec.row for spec in state.family.specs],
        "crew": state.crew,
        "standing": standing.to_json(),
        "seconds": state.session.work.seconds,
    }
    state.session.folder.save_state(index, tensors, facts)


def restore(session: Session, standing: Standing) -> tuple[LearningState, Plan] | None:
    """State and plan of the last checkpoint, with the standing filled; None when there is none yet."""
    found = session.folder.load_state()
    if found is None:
        return None
    tensors, facts = found
    student = session.config.student
    plan = Plan(**{**facts["plan"], "specs": _parsed(facts["plan"]["specs"], student)})
    state = start(session, _parsed(facts["alive"], student), plan.rounds)
    limit = float(facts["normaliser_limit"])
    state.settle(Normaliser(tensors["normaliser.mean"], tensors["normaliser.scale"], limit))
    learner = {k.removeprefix("learner."): torch.from_numpy(v) for k, v in tensors.items() if k.startswith("learner.")}
    state.learner.load_state(learner)
    _refill(standing, facts["standing"], tensors, state)
    load_shards(session, state, facts["round"])
    crew = facts["crew"]
    session.work.seconds.update(facts["seconds"])
    state = replace(state, rounds_done=facts["round"] + 1, timesteps=facts["timesteps"])
    state.crew = None if crew is None else tuple(crew)
    return state, plan


def _refill(
    standing: Standing, document: dict[str, Any], tensors: Mapping[str, NDArray[Any]], state: LearningState
) -> None:
    config, device = state.session.config.student, state.family.device
    standing.dropped = set(_parsed(document["dropped"], config))
    standing.stopped = set(_parsed(document["stopped"], config))
    for entry in document["candidates"]:
        (spec,) = _parsed([entry["spec"]], config)
        named = Candidate.weights_in(tensors, key_of(spec, entry["round"]))
        weights = {name: torch.from_numpy(value).to(device) for name, value in named.items()}
        student = state.student_with(spec, weights, weights.pop("log_std"))
        standing.add(Candidate(spec, entry["round"], entry["timesteps"], student, entry["measured"]))
    standing.settle(document.get("walked", ()))  # a search of an earlier version does not say


def _parsed(rows: list[list[int]], config: StudentConfig) -> tuple[MemberSpec, ...]:
    return tuple(MemberSpec.from_row(row, kind_of(config), conv_of(config)) for row in rows)
