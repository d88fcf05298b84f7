"""A binary decision tree as arrays: what a student of kind tree computes. NumPy alone suffices.

Inner node i asks whether feature[i] <= threshold[i], and goes to children[i, 0] if so, else (a NaN too) to
children[i, 1]. A child k >= 0 is inner node k, a child k < 0 is leaf -1 - k. Every child that is an inner node has a
larger number than its parent, so that a walk ends; every node but the first, and every leaf, has one parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.types import Array, Footprint

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]
LARGEST = float(np.finfo(np.float32).max)
"""In the place of a normaliser's limit, which a tree has no use for: it sees an observation's own units."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """`feature` [N] int64, `threshold` [N] float32, `children` [N, 2] int64, `value` [N + 1, M] float32: what each leaf
    gives."""

    feature: Ints
    threshold: F32
    children: Ints
    value: F32

    def __len__(self) -> int:
        """N, inner nodes; there is one leaf more."""
        return len(self.feature)

    @classmethod
    def single(cls, value: Array) -> Nodes:
        """One leaf, which gives `value` [M] everywhere."""
        none = np.zeros(0, np.int64)
        return cls(none, np.zeros(0, np.float32), none.reshape(0, 2), np.asarray(value, np.float32).reshape(1, -1))

    @classmethod
    def from_arrays(cls, tensors: Mapping[str, Array]) -> Nodes:
        """The inverse of `arrays`; ValueError for indices that are no whole numbers."""
        whole = {name: np.asarray(tensors[f"tree.{name}"]) for name in ("feature", "children")}
        for name, values in whole.items():
            if not (np.isfinite(values).all() and (values == np.floor(values)).all() and (abs(values) < 2**24).all()):
                raise ValueError(f"tree.{name} holds what is no index")
        feature, children = (values.astype(np.int64) for values in whole.values())
        return cls(feature, tensors["tree.threshold"], children, tensors["tree.value"])

    def arrays(self) -> dict[str, F32]:
        """Every array by its name in a student file; indices as float32, which holds them exactly."""
        found = {"feature": self.feature, "threshold": self.threshold, "children": self.children, "value": self.value}
        return {f"tree.{name}": np.asarray(values, np.float32) for name, values in found.items()}

    @classmethod
    def shapes(cls, leaves: int, n_outputs: int) -> dict[str, tuple[int, ...]]:
        """The shapes of `arrays`."""
        inner = leaves - 1
        of = {"feature": (inner,), "threshold": (inner,), "children": (inner, 2), "value": (leaves, n_outputs)}
        return {f"tree.{name}": shape for name, shape in of.items()}

    def check(self, n_inputs: int) -> None:
        """ValueError, in one line, unless this is a tree over so many inputs: no cycle, no index out of range, no node
        with two parents or none, no number that is not finite."""
        n = len(self)
        fits = self.feature.shape == self.threshold.shape == (n,) and self.children.shape == (n, 2)
        if not fits or self.value.ndim != 2 or len(self.value) != n + 1:
            raise ValueError(f"a tree of {n} inner nodes and {len(self.value)} leaves")
        if n and not (self.feature.min() >= 0 and self.feature.max() < n_inputs):
            raise ValueError(f"tree.feature is not below {n_inputs}, the inputs")
        if not (np.isfinite(self.threshold).all() and np.isfinite(self.value).all()):
            raise ValueError("tree.threshold or tree.value is not finite")
        inner = self.children >= 0
        if (inner & (self.children <= np.arange(n)[:, None])).any():
            raise ValueError("tree.children goes back to an earlier node")
        if not np.array_equal(np.sort(self.children, axis=None), np.r_[-n - 1 : 0, 1:n] if n else np.zeros(0)):
            raise ValueError("tree.children does not name every node and every leaf once")

    @property
    def footprint(self) -> Footprint:
        """Parameters: feature and threshold of each inner node, and the outputs of each leaf. Nothing is multiplied."""
        return footprint_of(len(self.value), self.value.shape[1])

    @cached_property
    def depth(self) -> int:
        """Comparisons on the longest way."""
        deep, most = np.ones(len(self), np.int64), 0
        for i, pair in enumerate(self.children):
            most = max(most, int(deep[i]))
            deep[pair[pair >= 0]] = deep[i] + 1
        return most

    def leaf_of(self, inputs: Array) -> Ints:
        """[B] the leaf that each row of inputs [B, F] comes to."""
        feature, threshold, children = self._walk
        rows, node = np.arange(len(inputs)), np.zeros(len(inputs), np.int64)
        for _ in range(self.depth):
            beyond = ~(inputs[rows, feature[node]] <= threshold[node])
            node = children[node, beyond.astype(np.int64)]
        return node - len(self)

    def outputs(self, inputs: Array) -> F32:
        """Logits or means [B, M] of inputs [B, F] in the observation's own units; NaN where an input is NaN."""
        found = self.value[self.leaf_of(inputs)]
        lost = np.isnan(inputs).any(-1)
        if lost.any():
            found[lost] = np.nan
        return found

    @cached_property
    def _walk(self) -> tuple[Ints, F32, Ints]:
        """The same with the leaves behind the inner nodes; each is its own child, so that a walk may go on there."""
        n, leaves = len(self), np.arange(len(self.value))
        feature = np.concatenate([self.feature, np.zeros(len(leaves), np.int64)])
        threshold = np.concatenate([self.threshold, np.zeros(len(leaves), np.float32)])
        inner = np.where(self.children >= 0, self.children, n - 1 - self.children)
        return feature, threshold, np.concatenate([inner, np.stack([n + leaves] * 2, 1)])


def footprint_of(leaves: int, n_outputs: int) -> Footprint:
    """Of a tree with so many leaves."""
    return Footprint(params=2 * (leaves - 1) + leaves * n_outputs, constants=0, macs=0)


def beneath(thresholds: Array) -> F32:
    """The largest float32 that is not above each of these float64: a float32 is at most the one exactly where it is at
    most the other."""
    wide = np.asarray(thresholds, np.float64)
    near: NDArray[Any] = wide.astype(np.float32)
    return np.where(near > wide, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)
