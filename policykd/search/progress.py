"""What a search has reached, on disk after every round, restored bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from policykd.learn.session import Session
from policykd.learn.states import LearningState, load_shards, start
from policykd.search.generation import Plan
from policykd.search.standing import Candidate, Standing, key_of
from policykd.students.family import MemberSpec
from policykd.students.normaliser import Normaliser


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
        "plan": {**vars(plan), "specs": _specs(plan.specs)},
        "alive": _specs(state.family.specs),
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
    plan = Plan(**{**facts["plan"], "specs": _parsed(facts["plan"]["specs"])})
    state = start(session, _parsed(facts["alive"]), plan.rounds)
    limit = float(facts["normaliser_limit"])
    state.normaliser = Normaliser(tensors["normaliser.mean"], tensors["normaliser.scale"], limit)
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
    standing.dropped = set(_parsed(document["dropped"]))
    standing.stopped = set(_parsed(document["stopped"]))

    def put(value: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(value).to(state.family.device)

    for entry in document["candidates"]:
        (spec,) = _parsed([entry["spec"]])
        name = f"candidate.{key_of(spec, entry['round'])}"
        layers = [(put(tensors[f"{name}.{k}.weight"]), put(tensors[f"{name}.{k}.bias"])) for k in range(spec.depth + 1)]
        student = state.student_with(layers, put(tensors[f"{name}.log_std"]))
        standing.add(Candidate(spec, entry["round"], entry["timesteps"], student, entry["measured"]))
    standing.settle(document.get("walked", ()))  # a search of an earlier version does not say


def _specs(specs: tuple[MemberSpec, ...]) -> list[list[int]]:
    return [[s.depth, s.width, s.seed] for s in specs]


def _parsed(specs: list[list[int]]) -> tuple[MemberSpec, ...]:
    return tuple(MemberSpec(depth, width, seed) for depth, width, seed in specs)
