"""The state of learning between rounds: written, and restored bit for bit."""

from __future__ import annotations

import math
from typing import Any

import torch

from policykd.learn.rounds.offline import stored_states
from policykd.learn.rounds.states import LearningState, start
from policykd.learn.setup.session import Session
from policykd.spine.errors import InputError
from policykd.students.normaliser import Normaliser


def save(session: Session, state: LearningState, round_index: int) -> None:
    """The checkpoint at a round's end."""
    state.rounds_done = round_index + 1
    assert state.normaliser is not None
    tensors = {f"learner.{name}": value.cpu().numpy() for name, value in state.learner.state().items()}
    tensors |= {f"snapshot.{r}": flat.cpu().numpy() for r, flat in state.selection.snapshots.items()}
    if state.held.best is not None:
        tensors["held.best"] = state.held.best.cpu().numpy()
    tensors |= {"normaliser.mean": state.normaliser.mean, "normaliser.scale": state.normaliser.scale}
    facts: dict[str, Any] = {
        "timesteps": state.timesteps,
        "updates": state.rounds_done * state.learner.n_updates,
        "normaliser_limit": state.normaliser.limit,
        "selection": {str(r): means for r, means in state.selection.returns.items()},
        "held": state.held.losses,
        "progress": [None if math.isnan(g) else g for g in state.progress],
        "seconds": session.work.seconds,
    }
    session.folder.save_state(round_index, tensors, facts)


def restore(session: Session, last: int | None = None) -> LearningState | None:
    """The state of the last checkpoint, or None when there is none yet. `last`: its data up to that round alone, where
    this is one of several tasks, and the others were not saved after it."""
    found = session.folder.load_state()
    if found is None:
        return None
    tensors, facts = found
    state = start(session)
    values = {name: torch.from_numpy(value) for name, value in tensors.items()}
    limit = float(facts["normaliser_limit"])
    state.settle(Normaliser(tensors["normaliser.mean"], tensors["normaliser.scale"], limit))
    state.learner.load_state({k.removeprefix("learner."): v for k, v in values.items() if k.startswith("learner.")})
    for name, means in facts["selection"].items():
        state.selection.returns[int(name)] = means
        state.selection.snapshots[int(name)] = values[f"snapshot.{name}"].to(state.family.device)
    state.progress = [float("nan") if g is None else g for g in facts.get("progress", [])]
    state.held.losses = list(facts.get("held", []))
    state.held.best = values["held.best"].to(state.family.device) if "held.best" in values else None
    done = facts["round"] if last is None else min(facts["round"], last)
    ended = state.held.over(session.config.update.patience)
    if done + 1 < session.config.rollout.rounds and not ended:  # else the data has done its work
        load_shards(session, state, done)
    state.rounds_done, state.timesteps = done + 1, facts["timesteps"]
    session.work.seconds.update(facts["seconds"])
    return state


def load_shards(session: Session, state: LearningState, last: int) -> None:
    """Fills the data set again with the labelled states of every round up to `last`. InputError where one is gone."""
    if session.config.data.dir is not None:
        visited = stored_states(session, state.rows)
        state.keep(0, visited, state.inputs(visited["observation"].to(state.family.device)), state.labels(visited))
        return
    for index in session.folder.shards:
        if index > last:
            continue
        shard = session.folder.load_shard(index)
        if shard is None:
            raise InputError(
                f"{session.folder.checkpoints}: the labelled data of round {index} is missing; start a new run"
            )
        visited = {name: torch.from_numpy(value).to(state.family.device) for name, value in shard.items()}
        state.keep(index, visited, state.inputs(visited["observation"]), state.labels(visited))
