"""From a student to its graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policykd.exports.graph import Activate, Dense, Graph, Head, Layer, Normalise, Port
from policykd.exports.gru import Gru
from policykd.exports.interface import START, STATE_IN, STATE_OUT
from policykd.exports.layers import Tree, arrays_of
from policykd.exports.of_conv import layers_of
from policykd.spine.errors import InputError
from policykd.spine.packing import Leaf, Packing
from policykd.spine.spaces import encode_space
from policykd.students.conv import ConvStudent
from policykd.students.gru import GruStudent
from policykd.students.mlp import MlpStudent
from policykd.students.student import Student
from policykd.students.tree import TreeStudent

OBSERVATION = "obs"
_TAKEN = frozenset({"action", "action_masks", "noise", "logits", "mean", "log_std"})
_OF_MEMORY = frozenset({STATE_IN, STATE_OUT, START})


def exportable(student: Student, source: str) -> Student:
    """The student, where it has a graph; InputError, which calls it `source`, for a kind that has none."""
    if isinstance(student, MlpStudent | GruStudent | ConvStudent | TreeStudent):
        return student
    raise InputError(
        f"{source}: is a student of kind {student.kind}, and this version exports students of kind mlp, gru, cnn, "
        "multi and tree; it acts in Python, with load_student(FILE).predict(observation, state, episode_start)"
    )


def graph_of(student: Student, *, stochastic: bool = False, with_distribution: bool = False) -> Graph:
    """The neutral graph of a student; InputError for weights that are not finite, and for a kind that has none."""
    distribution = student.distribution.to_json()
    kind = distribution["type"]
    gaussian = kind.endswith("Gaussian")
    branches = [distribution["n"]] if kind == "Categorical" else distribution.get("nvec", [])
    size = student.distribution.n_means
    head = Head(
        kind="numbers" if gaussian else "bits" if kind == "Bernoulli" else "choices",
        size=size,
        branches=tuple(int(n) for n in branches),
        squash=kind == "SquashedDiagGaussian",
        log_std=student.log_std.cpu().numpy().astype(np.float32) if gaussian else np.zeros(0, np.float32),
    )
    graph = Graph(
        ports=ports_of(student.packing, _TAKEN | _OF_MEMORY if student.recurrent else _TAKEN),
        layers=tuple(_layers(student)),
        head=head,
        action=student.action_map,
        masked=student.masked,
        stochastic=stochastic,
        with_distribution=with_distribution,
        observation_space=encode_space(student.observation_space),
        action_space=encode_space(student.action_space),
    )
    _check_finite(graph)
    return graph


def ports_of(packing: Packing, taken: frozenset[str] = _TAKEN) -> tuple[Port, ...]:
    """One port for each leaf: `obs` for a plain space, else the keys and positions on the way to it, joined by dots.

    InputError where two would have one name, or one would have a name that is `taken`.
    """
    names = [_name(leaf) for leaf in packing.leaves]
    if len(set(names)) < len(names) or (set(names) & taken):
        raise InputError(
            f"observation: the names of its entries, {', '.join(names)[:200]}, are not told apart, or are those of "
            f"outputs ({', '.join(sorted(taken))}): rename the keys in the environment"
        )
    return tuple(
        Port(name, leaf.path, leaf.shape, leaf.dtype, leaf.nvec, leaf.start)
        for name, leaf in zip(names, packing.leaves, strict=True)
    )


def split(packing: Packing, packed: Any, whole: Packing | None = None) -> tuple[Any, ...]:
    """Packed observations [B, *shape] as the ports of a student with this packing take them: [B, *shape of the leaf]
    each, in the leaf's dtype. `whole`: how the observations are packed, where they hold more than the student sees."""
    shown = packing if whole is None else whole
    places = {leaf.path: leaf for leaf in shown.leaves}
    return tuple(
        np.asarray(shown.leaf_of(packed, places[leaf.path])).astype(leaf.dtype, copy=False) for leaf in packing.leaves
    )


def _name(leaf: Leaf) -> str:
    return ".".join(map(str, leaf.path)) if leaf.path else OBSERVATION


def _layers(student: Student) -> Sequence[Layer]:
    if isinstance(student, ConvStudent):
        return layers_of(student)
    if isinstance(student, TreeStudent):
        return [Tree(student.nodes)]
    normaliser = student.normaliser
    layers: list[Layer] = [Normalise(normaliser.mean, normaliser.scale, float(normaliser.limit))]
    if isinstance(student, GruStudent):
        parts = {name: part.cpu().numpy() for name, part in student.parts.items()}
        gru = Gru(*(parts[f"gru.{name}"] for name in ("input", "state", "bias", "new_bias")))
        return [*layers, gru, Dense(parts["head.weight"], parts["head.bias"])]
    student = exportable(student, "student")
    assert isinstance(student, MlpStudent)
    for index, (weight, bias) in enumerate(student.layers):
        scale = student.scales[index].cpu().numpy() if student.scales else None
        layers.append(Dense(weight.cpu().numpy(), bias.cpu().numpy(), scale))
        if index + 1 < len(student.layers):
            layers.append(Activate(student.activation))
    return layers


def _check_finite(graph: Graph) -> None:
    arrays = {"log_std": graph.head.log_std, **arrays_of(graph.layers)}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise InputError(f"student: {name} holds a NaN or infinity; nothing is exported: train it again")
