"""Which architectures are tried: from a linear policy up to the teacher's own size, coarsely first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from policykd.exports.c.source import source_of
from policykd.exports.graph import Graph
from policykd.exports.of_student import graph_of
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.spine.config.schema import Config
from policykd.spine.config.student import StudentConfig
from policykd.spine.errors import InputError
from policykd.spine.packing import Packing
from policykd.students.conv import ConvStudent
from policykd.students.encoders import normaliser_places, planned
from policykd.students.gru import GruStudent
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.students.numpy_backend import gru_shapes
from policykd.students.spec import Activation, Conv, Kind, MemberSpec, conv_of, kind_of, members_of
from policykd.students.student import Student
from policykd.students.view import View
from policykd.teachers.base import Teacher

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
DEPTHS = (0, 1, 2)
CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_BEHIND = (8, 16, 32)  # units of a layer behind convolutions
_WIDEST_UNKNOWN = 64  # of a teacher whose network nobody can see
SCOUT_MACS = 12_000
"""Of all members of the first generation together: an update of MLPs takes about a millisecond."""
_REMEMBERED = 128  # numbers, by the GRUs of one generation together: an update of them takes 5 to 9 ms, launches mostly
_CONVOLVED = 400_000
"""Multiply-accumulates by the convolutions of one generation together: an update of them takes some 30 ms."""
_BYTES = 4  # of a float32
_SCOUT_WIDTHS = (1, 2, 4, 8, 16, 32, 64)

Size = Callable[[MemberSpec], int]


def size_of(observed: int | Packing, n_means: int) -> Size:
    """Parameters of an architecture, for so many inputs, or for observations of this packing."""
    return lambda spec: spec.footprint(observed, n_means).params


def view_of(teacher: Teacher, keys: Sequence[str] | None) -> View:
    """What students of this teacher see."""
    return View.of(keys, teacher.observation_space, teacher.packing)


def size_for(teacher: Teacher, keys: Sequence[str] | None) -> Size:
    """Parameters of an architecture, for students of this teacher that see `keys`."""
    return size_of(view_of(teacher, keys).packing, teacher.distribution.n_means)


def costs(observed: int | Packing, n_means: int, most: int) -> Size:
    """What an update of a member costs of the `most` that those of a generation may cost together: of an MLP its
    multiply-accumulates; of a GRU its share of the numbers that are carried along at little cost; of convolutions,
    whose updates take far longer in any case, their share of more multiply-accumulates."""

    def cost(spec: MemberSpec) -> int:
        if spec.kind == "gru":
            return -(-most * spec.width // _REMEMBERED)
        macs = spec.footprint(observed, n_means).macs
        return -(-most * macs // _CONVOLVED) if spec.conv else macs

    return cost


def with_grid_settings(student: StudentConfig, config: Config, teacher: Teacher) -> StudentConfig:
    """The section with every axis of the grid as a list."""
    widths, depths = grid_settings(config, teacher)
    axes: dict[str, list[int]] = {"width": widths, "depth": depths}
    if conv_of(student):
        axes["channels"] = _channels(config, teacher)
    return student.model_copy(update=axes)


def grid_settings(config: Config, teacher: Teacher) -> tuple[list[int], list[int]]:
    """Widths and depths of the grid: those of the configuration, or all up to the teacher's own (a single depth is
    the default of `distill`, and says nothing beside a width of auto; a list does)."""
    student = config.student
    if student.width != "auto":
        widths = student.width if isinstance(student.width, list) else [student.width]
        return widths, student.depth if isinstance(student.depth, list) else [student.depth]
    if student.kind == "gru":
        return _memories(config, teacher), [1]
    if conv_of(student):
        return list(_BEHIND), student.depth if isinstance(student.depth, list) else [0, 1]
    widest = max((outputs for _, outputs in teacher.info.layers[:-1]), default=_WIDEST_UNKNOWN)
    widths = [w for w in WIDTHS if w <= widest]
    return widths, student.depth if isinstance(student.depth, list) else list(DEPTHS)


def _bound(config: Config, teacher: Teacher) -> int:
    """Parameters below which students stay: the teacher's; 0 for no bound, of a teacher whose network nobody can see,
    and where the student has other observations, which may take a larger network than the teacher's."""
    return 0 if config.student.wrappers else teacher.info.footprint.params


def _memories(config: Config, teacher: Teacher) -> list[int]:
    """Widths of the GRUs that are smaller than the teacher; at least the smallest."""
    own = _bound(config, teacher)
    size = size_for(teacher, config.student.keys)
    smaller = [w for w in WIDTHS if (size(MemberSpec(1, w, kind="gru")) < own if own else w <= _WIDEST_UNKNOWN)]
    return smaller or list(WIDTHS[:1])


def _channels(config: Config, teacher: Teacher) -> list[int]:
    """Those of the configuration, or all with which a student is smaller than the teacher; at least the smallest."""
    student, own = config.student, _bound(config, teacher)
    if isinstance(student.channels, list | int):
        return student.channels if isinstance(student.channels, list) else [student.channels]
    size, width = size_for(teacher, student.keys), _BEHIND[0] if student.kind == "multi" else 0
    first = MemberSpec(0, width, 0, kind_of(student), 1, conv_of(student))
    known = [c for c in CHANNELS if not own or size(replace(first, channels=c)) < own]
    return known or list(CHANNELS[:1])


def grid(config: Config, teacher: Teacher, size: Size) -> list[MemberSpec]:
    """Every architecture of the resolved configuration that is smaller than the teacher (where that is a bound) and
    within the limits, smallest first. InputError where none is left."""
    student, search = config.student, config.search
    assert isinstance(student.width, list) and isinstance(student.depth, list) and search is not None
    kind = kind_of(student)
    every = sorted(set(members_of(student)), key=size)
    own, fixed = _bound(config, teacher), fixed_bytes(teacher, kind, student.keys, conv_of(student))
    most = min(search.max_params or 10**12, ((search.max_bytes or 10**13) - fixed) // _BYTES)
    fitting = [spec for spec in every if size(spec) <= most]
    if not fitting:
        name = "search.max_params" if search.max_params and search.max_params <= most else "search.max_bytes"
        raise InputError(
            f"{name}: no student is so small; the smallest of the grid has {size(every[0]):,} parameters and "
            f"{_BYTES * size(every[0]) + fixed:,} bytes with its normaliser: raise the limit"
        )
    smaller = [spec for spec in fitting if not own or size(spec) < own]
    return smaller or fitting[:1]


def blank(
    teacher: Teacher, spec: MemberSpec, activation: Activation, keys: Sequence[str] | None = None
) -> MlpStudent | GruStudent | ConvStudent:
    """A student of this architecture that knows nothing. Its weights are random, as large as trained ones: of zeros
    tanh takes a third of the time."""
    view, distribution = view_of(teacher, keys), teacher.distribution
    n = view.packing.n_features
    generator = torch.Generator().manual_seed(0)
    shared: dict[str, Any] = {
        "normaliser": Normaliser(np.zeros(n, np.float32), np.ones(n, np.float32)),
        "log_std": torch.zeros(distribution.n_params - distribution.n_means),
        "distribution": distribution,
        "action_map": teacher.action_map,
        "observation_space": view.space,
        "action_space": teacher.action_space,
        "masked": teacher.masked,
    }
    if spec.kind == "gru":
        shapes = gru_shapes(n, spec.width, distribution.n_means).items()
        parts = {k: torch.randn(s, generator=generator) / s[-1] ** 0.5 for k, s in shapes}
        return GruStudent(parts=parts, **shared)
    if spec.conv:
        plan = planned(spec, view.packing, distribution.n_means, activation)
        places = normaliser_places(view.packing)
        zeros = np.zeros(plan.constants, np.float32)
        shared["normaliser"] = Normaliser(zeros, np.ones_like(zeros), places=places)
        parts = {k: torch.randn(s, generator=generator) / s[0] ** 0.5 for k, s in plan.shapes.items()}
        return ConvStudent(plan=plan, parts=parts, **shared)
    sizes = spec.sizes(n, distribution.n_means)
    layers = tuple((torch.randn(i, o, generator=generator) / i**0.5, torch.zeros(o)) for i, o in sizes)
    return MlpStudent(layers=layers, activation=activation, **shared)


def graph_if_any(student: Student) -> Graph | None:
    """What is exported of it; None where this version exports no student of its kind."""
    try:
        return graph_of(student)
    except InputError:
        return None


def fixed_bytes(teacher: Teacher, kind: Kind = "mlp", keys: Sequence[str] | None = None, conv: Conv = "") -> int:
    """Bytes of constants in the exported C of any student of this teacher beside its weights and biases: the
    normaliser's, and those that turn its output into an action. Where C cannot hold it, the normaliser's alone."""
    smallest = MemberSpec(0, 0) if kind == "mlp" else MemberSpec(1, 1, 0, kind, 1 if conv else 0, conv)
    student = blank(teacher, smallest, "tanh", keys)
    graph = graph_if_any(student)
    try:
        if graph is not None:
            c99.check(graph, Options())
            return source_of(graph).flash - _BYTES * student.footprint.params
    except InputError:
        pass
    return _BYTES * student.footprint.constants


def scouts(specs: Sequence[MemberSpec], macs: Callable[[MemberSpec], int]) -> list[MemberSpec]:
    """The first generation: the grid at every second step, as far as its updates stay cheap."""
    coarse = [s for s in specs if _is_coarse(s)] if len(specs) > 12 else list(specs)
    if len(coarse) < 2:  # widths of the user's own
        coarse = list(specs[::2])
    chosen, spent = list[MemberSpec](), 0
    for spec in coarse:
        if chosen and spent + macs(spec) > SCOUT_MACS:
            break
        chosen.append(spec)
        spent += macs(spec)
    return chosen


def _is_coarse(spec: MemberSpec) -> bool:
    if spec.conv:
        return spec.channels in _SCOUT_WIDTHS and spec.width in (0, _BEHIND[1])
    return spec.depth == 0 or spec.width in _SCOUT_WIDTHS


def between(specs: Sequence[MemberSpec], low: int, high: int, size: Size) -> list[MemberSpec]:
    """Architectures of more than `low` and fewer than `high` parameters, largest first."""
    return [s for s in reversed(specs) if low < size(s) < high]


def above(specs: Sequence[MemberSpec], low: int, size: Size, count: int) -> list[MemberSpec]:
    """`count` architectures of more than `low` parameters, spread evenly (in the order of size) up to the largest."""
    larger = [s for s in specs if size(s) > low]
    if len(larger) <= count:
        return larger
    step = (len(larger) - 1) / max(count - 1, 1)
    return [larger[round(i * step)] for i in range(count)]


def with_seeds(specs: Iterable[MemberSpec], first: dict[tuple[int, ...], int], count: int) -> list[MemberSpec]:
    """Each architecture with its next seeds, up to `count` in all; `first`: how many it had already."""
    found = []
    for spec in specs:
        found += [replace(spec, seed=seed) for seed in range(first.get(spec.architecture, 0), count)]
    return found
