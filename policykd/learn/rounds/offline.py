"""Learning from labelled data that lies ready (`data.dir`, docs/methods/offline.md): nobody acts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.data.stored import Layout, Sizes, Stored, layout_of, open_stored, refuse_other
from policykd.learn.rounds.labels import beside
from policykd.learn.setup.session import Session
from policykd.learn.setup.weighing import as_labelled
from policykd.rollout.collect import TEACHER
from policykd.rollout.envs import EnvSpec
from policykd.rollout.masks import mask_branches
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.spaces import encode_space
from policykd.spine.types import Array
from policykd.spine.wrappers import written
from policykd.teachers.base import Teacher
from policykd.teachers.ensemble import EnsembleTeacher

Rows = Callable[[Array], NDArray[Any]]


def about_of(config: Config, teacher: Teacher, spec: EnvSpec) -> dict[str, Any]:
    """What labelled data is about: equal documents mean that one student can learn from both."""
    several, e = isinstance(teacher, EnsembleTeacher), config.ensemble
    return {
        "env": spec.recorded_id,
        "teacher": {"algo": teacher.info.algo, "sha256": teacher.info.sha256, "fingerprint": teacher.fingerprint},
        "observation_space": encode_space(teacher.observation_space),
        "action_space": encode_space(teacher.action_space),
        "distribution": teacher.distribution.to_json(),
        "masked": spec.masked,
        "wrappers": written(spec.wrappers),
        "student_wrappers": written(spec.student_wrappers),
        "columns": [".".join(map(str, leaf.path)) for leaf in (spec.packing or teacher.packing).leaves],
        "q_temperature": 1.0 / teacher.logit_scale if teacher.value_teacher else None,
        "ensemble": e.model_dump(mode="json", include={"how", "weights", "q_temperatures"}) if several else None,
    }


def layout_for(teacher: Teacher, spec: EnvSpec) -> Layout:
    """The columns of data about them."""
    packing, space = spec.packing or teacher.packing, teacher.action_space
    choices = sum(mask_branches(space)) if spec.masked else 0
    action = tuple(space.shape or ()), str(space.dtype)
    return layout_of((packing.shape, packing.dtype), action, Sizes(teacher.distribution.n_params, choices))


def with_data(config: Config, teacher: Teacher, spec: EnvSpec) -> tuple[Config, Teacher]:
    """Both as `data.dir` was labelled, if an ensemble leaves something to be measured; InputError where that folder
    holds no whole data of this teacher and this environment."""
    stored = open_stored(Path(config.data.dir or ""))
    if isinstance(teacher, EnsembleTeacher):
        config, teacher = as_labelled(config, teacher, stored.document["about"].get("ensemble"))
    refuse_other(stored, about_of(config, teacher, spec))
    if not stored.document.get("complete") or not stored.shards:
        raise InputError(
            f"{stored.path}: its collection has not ended ({len(stored.shards)} shards so far): continue it with "
            f"policykd collect --resume {stored.path}"
        )
    data = config.data.model_copy(update={"dir": str(stored.path.absolute())})
    return config.model_copy(update={"data": data}), teacher


def stored_states(session: Session, rows: Rows) -> dict[str, Tensor]:
    """The newest `data.max_states` states of all shards, as a round of collection would give them: observation [M, F]
    as `rows` of the environment's, params [M, P], start [M]. Nobody of this run drove them: actor [M] is the teacher,
    and no episode counts."""
    stored, layout = open_stored(Path(session.config.data.dir or "")), layout_for(session.teacher, session.spec)
    surplus = sum(stored.rows) - session.config.data.max_states
    if surplus > 0:
        session.work.tracker.note(f"data.max_states: the first {surplus:,} of {sum(stored.rows):,} states are left out")
    skip, parts = max(surplus, 0), list[dict[str, NDArray[Any]]]()
    with session.work.stage("read", total=len(stored.shards)):
        for index, count in enumerate(stored.rows):
            session.work.check()
            session.work.advance()
            if skip >= count:
                skip -= count
                continue
            parts.append(_part(stored.read(index, layout), skip, rows))
            skip = 0
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    joined["params"] *= _rescale(stored, session.teacher)
    return _round(session, joined)


def no_states(session: Session, rows: Rows) -> dict[str, Tensor]:
    """A round that sees nothing new."""
    packing = session.spec.packing or session.teacher.packing
    one = {
        "observation": rows(np.zeros((1, *packing.shape), packing.dtype)),
        "params": np.zeros((1, session.teacher.distribution.n_params), np.float32),
        "start": np.ones(1, np.bool_),
    }
    return {name: values[:0] for name, values in _round(session, one).items()}


def _round(session: Session, states: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
    """What one round of collection gives of these states, which nobody of this run drove."""
    extra = beside(session.config, session.teacher, states["params"], states["observation"], 0)
    columns = states if extra is None else {**states, "beside": extra}
    nobody = np.full(len(states["params"]), TEACHER, np.int32)
    found = {**columns, "actor": nobody, "returns": np.zeros(0), "slot": np.zeros(0, np.int64)}
    return {name: torch.from_numpy(values) for name, values in found.items()}


def _part(columns: dict[str, NDArray[Any]], skip: int, rows: Rows) -> dict[str, NDArray[Any]]:
    start = columns["start"][skip:].copy()
    start[0] = True  # what came before is not there
    return {"observation": rows(columns["observation"][skip:]), "params": columns["params"][skip:], "start": start}


def _rescale(stored: Stored, teacher: Teacher) -> np.float32:
    """Logits of a Q-value teacher are Q over the temperature of the run that made them."""
    if not teacher.value_teacher:
        return np.float32(1)
    theirs = stored.document["about"].get("q_temperature")
    if not isinstance(theirs, float) or not 0 < theirs < float("inf"):
        raise InputError(f"{stored.path}: its q_temperature is {theirs!r}, expected a positive number")
    return np.float32(theirs * teacher.logit_scale)
