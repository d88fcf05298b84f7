"""From a student to its graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policykd.exports.graph import Activate, Dense, Graph, Head, Layer, Normalise, Port
from policykd.exports.layers import arrays_of
from policykd.spine.errors import InputError
from policykd.spine.packing import Leaf, Packing
from policykd.spine.spaces import encode_space
from policykd.students.mlp import MlpStudent
from policykd.students.student import Student

OBSERVATION = "obs"
_TAKEN = frozenset({"action", "action_masks", "noise", "logits", "mean", "log_std"})


def graph_of(student: Student, *, stochastic: bool = False, with_distribution: bool = False) -> Graph:
    """The neutral graph of a student; InputError for weights that are not finite, and for a kind that has none."""
    if not isinstance(student, MlpStudent):
        raise InputError(f"student: is of kind {student.kind}, and this version exports students of kind mlp")
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
        ports=ports_of(student.packing),
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


def ports_of(packing: Packing) -> tuple[Port, ...]:
    """One port for each leaf: `obs` for a plain space, else the keys and positions on the way to it, joined by dots.

    InputError where two would have one name.
    """
    names = [_name(leaf) for leaf in packing.leaves]
    if len(set(names)) < len(names) or (set(names) & _TAKEN):
        raise InputError(
            f"observation: the names of its entries, {', '.join(names)[:200]}, are not told apart, or are those of "
            f"outputs ({', '.join(sorted(_TAKEN))}): rename the keys in the environment"
        )
    return tuple(
        Port(name, leaf.path, leaf.shape, leaf.dtype, leaf.nvec, leaf.start)
        for name, leaf in zip(names, packing.leaves, strict=True)
    )


def split(packing: Packing, packed: Any) -> tuple[Any, ...]:
    """Packed observations [B, *shape] as the ports take them: [B, *shape of the leaf] each, in the leaf's dtype."""
    return tuple(np.asarray(packing.leaf_of(packed, leaf)).astype(leaf.dtype, copy=False) for leaf in packing.leaves)


def _name(leaf: Leaf) -> str:
    return ".".join(map(str, leaf.path)) if leaf.path else OBSERVATION


def _layers(student: MlpStudent) -> Sequence[Layer]:
    normaliser = student.normaliser
    layers: list[Layer] = [Normalise(normaliser.mean, normaliser.scale, float(normaliser.limit))]
    for index, (weight, bias) in enumerate(student.layers):
        layers.append(Dense(weight.cpu().numpy(), bias.cpu().numpy()))
        if index + 1 < len(student.layers):
            layers.append(Activate(student.activation))
    return layers


def _check_finite(graph: Graph) -> None:
    arrays = {"log_std": graph.head.log_std, **arrays_of(graph.layers)}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise InputError(f"student: {name} holds a NaN or infinity; nothing is exported: train it again")
