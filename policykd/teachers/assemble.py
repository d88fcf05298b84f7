"""The last step of every source: facts and statistics become a `Teacher`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from policykd.spine.types import TeacherInfo
from policykd.spine.wrappers import Wrappers
from policykd.teachers.base import Interface, Teacher
from policykd.teachers.build import build_network
from policykd.teachers.critics import critic_of
from policykd.teachers.modelspec import ModelSpec
from policykd.teachers.networks import GsdeStd
from policykd.teachers.normalize import Statistics
from policykd.teachers.recurrent import NOTE, RecurrentTeacher, build_recurrent, is_recurrent

if TYPE_CHECKING:
    from gymnasium import Space


@dataclass(frozen=True)
class Origin:
    """Where a teacher comes from; the fields are those of `TeacherInfo`. Without `sha256` its fingerprint is taken."""

    source: str
    sha256: str = ""
    env_id: str | None = None
    trained_on: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    wrappers: Wrappers = ()


def make_teacher(spec: ModelSpec, normalizer: Statistics | None, origin: Origin) -> Teacher:
    """The teacher; InputError where weights, spaces and statistics do not fit each other."""
    recurrent = is_recurrent(spec)
    network = build_recurrent(spec) if recurrent else replace(build_network(spec), critic=critic_of(spec))
    info = TeacherInfo(
        source=origin.source,
        sha256=origin.sha256,
        algo=spec.algo,
        env_id=origin.env_id,
        trained_on=origin.trained_on,
        layers=network.sizes,
        activation=spec.activation,
        normalised=normalizer is not None,
        gsde=isinstance(network.head, GsdeStd),
        footprint=network.footprint(normalizer.constants if normalizer else 0),
        env_kwargs=dict(origin.env_kwargs),
        versions=dict(spec.versions),
        wrappers=origin.wrappers,
        notes=(*origin.notes, *start_note(spec.action_space), *((NOTE,) if recurrent else ())),
    )
    kind = RecurrentTeacher if recurrent else Teacher
    teacher = kind(network, Interface(spec.observation_space, spec.action_space), info, normalizer)
    return teacher if info.sha256 else teacher.with_info(sha256=teacher.fingerprint)


def start_note(action_space: Space[Any]) -> tuple[str, ...]:
    """A note where actions do not start at 0."""
    start = np.asarray(getattr(action_space, "start", 0))
    if not start.any():
        return ()
    first = start.ravel().tolist()
    return (f"actions start at {first}; stable-baselines3 sends 0, 1 ... to the environment, and so does this teacher",)
