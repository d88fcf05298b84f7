"""Observations of any space as one array each, and as the features that a student takes. NumPy alone suffices.

A Box, Discrete, MultiDiscrete or MultiBinary observation is packed as it is, [*shape]. A Dict or Tuple, however
nested, becomes one vector: its leaves flattened, one after the other in the order of the space, in the smallest dtype
that holds them all exactly. Collection, evaluation and checkpoints know packed observations only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.actions import DTYPES, sizes_of
from policykd.spine.errors import InputError, brief
from policykd.spine.spaces import encode_space, entries_of

if TYPE_CHECKING:
    import torch
    from gymnasium import Space

    from policykd.spine.spaces import SpaceDoc

Array = NDArray[Any]
_FEATURE_BYTES = 2**26
_IMAGE_BYTES = 2**24  # a convolution makes several times as much of an image
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """One simple space inside a space: where it stands (`path`, keys and positions from the root), and where its
    numbers begin in the packed vector. `nvec`, `start`: how many choices each entry has, and from which number on;
    empty for numbers that are no choices."""

    path: Path
    shape: tuple[int, ...]
    dtype: str
    begin: int
    nvec: tuple[int, ...] = ()
    start: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers the leaf has."""
        return math.prod(self.shape)

    @property
    def n_features(self) -> int:
        """How many features it becomes: one per number, or one per choice."""
        return sum(self.nvec) if self.nvec else self.size


@dataclass(frozen=True)
class Packing:
    """How observations of one space are packed. `plain`: the space is a leaf itself, and its arrays stay as they are.

    `shape` and `dtype` are those of one packed observation.
    """

    leaves: tuple[Leaf, ...]
    shape: tuple[int, ...]
    dtype: str
    plain: bool

    @property
    def n_features(self) -> int:
        """F, the length of a student's input."""
        return sum(leaf.n_features for leaf in self.leaves)

    def rows(self, most: int) -> int:
        """How many observations to compute on at once: `most`, unless they are so large that their features, as
        float32, would take more than 64 MB (of images 16 MB)."""
        images = any(len(leaf.shape) > 2 for leaf in self.leaves)
        one = max(4 * self.n_features, math.prod(self.shape) * np.dtype(self.dtype).itemsize, 1)
        return min(most, max((_IMAGE_BYTES if images else _FEATURE_BYTES) // one, 1))

    def pack(self, observation: Any) -> Array:
        """One observation of the environment as an array [*shape]."""
        if self.plain:
            return np.asarray(observation)
        packed = np.empty(self.shape, self.dtype)
        for leaf in self.leaves:
            packed[leaf.begin : leaf.begin + leaf.size] = np.asarray(_at(observation, leaf.path)).reshape(-1)
        return packed

    def pack_batch(self, observation: Any, n: int | None = None) -> Array:
        """A batch of observations, each leaf [B, *leaf shape], as an array [B, *shape].

        InputError where a key is missing or a shape is wrong; `n` is the expected B.
        """
        if self.plain:
            return np.asarray(observation)
        parts = [self._rows(observation, leaf) for leaf in self.leaves]
        lengths = {len(part) for part in parts} | ({n} if n is not None else set())
        if len(lengths) != 1:
            raise InputError(f"observation: its parts have batches of {sorted(lengths)}, expected one length")
        return np.concatenate([part.astype(self.dtype) for part in parts], -1)

    def leaf_of(self, packed: Any, leaf: Leaf) -> Any:
        """The values [B, *leaf shape] of one leaf in a packed batch [B, *shape], an array or a tensor."""
        if self.plain:
            return packed
        return packed[:, leaf.begin : leaf.begin + leaf.size].reshape(len(packed), *leaf.shape)

    def features(self, packed: Array) -> NDArray[np.float32]:
        """A student's inputs [B, F], float32: numbers as they are, choices one-hot (all zero outside the space)."""
        if self.plain and not self.leaves[0].nvec:
            return packed.reshape(len(packed), -1).astype(np.float32)
        parts = []
        for leaf in self.leaves:
            values = self.leaf_of(packed, leaf).reshape(len(packed), leaf.size)
            parts += [values] if not leaf.nvec else [values[:, [i]] == np.arange(a, b) for i, a, b in _choices(leaf)]
        return np.concatenate([part.astype(np.float32) for part in parts], -1)

    def tensor_features(self, packed: torch.Tensor) -> torch.Tensor:
        """`features` on a tensor, on its device."""
        import torch

        if self.plain and not self.leaves[0].nvec:
            return packed.reshape(len(packed), -1)
        parts = []
        for leaf in self.leaves:
            values = self.leaf_of(packed, leaf).reshape(len(packed), leaf.size)
            if leaf.nvec:
                hot = [values[:, i : i + 1] == torch.arange(a, b, device=packed.device) for i, a, b in _choices(leaf)]
                parts += hot
            else:
                parts.append(values)
        return torch.cat([part.float() for part in parts], -1)

    def _rows(self, observation: Any, leaf: Leaf) -> Array:
        values = np.asarray(_at(observation, leaf.path))
        if values.shape[1:] != leaf.shape:
            where = ".".join(map(str, leaf.path))
            raise InputError(f"observation {where!r} has shape {values.shape}, expected (B, {str(leaf.shape)[1:]}")
        return values.reshape(len(values), leaf.size)


def packed_batch(observation: Any, packing: Packing) -> tuple[Array, bool]:
    """One observation or a batch of them as a packed batch [B, *packing.shape], and whether it was a single one.

    InputError for a wrong shape or a missing entry.
    """
    if packing.plain and isinstance(observation, dict | tuple):
        raise InputError(
            f"observation is a {type(observation).__name__}, expected an array: pass the observation alone, not "
            "reset()'s (observation, info)"
        )
    first = packing.leaves[0]
    single = not packing.plain and np.shape(_at(observation, first.path)) == first.shape
    array = packing.pack(observation) if single else packing.pack_batch(observation)
    if array.shape == packing.shape:
        return array[None], True
    if array.ndim != len(packing.shape) + 1 or array.shape[1:] != packing.shape:
        shape = packing.shape
        raise InputError(f"observation has shape {array.shape}, expected {shape} or a batch (B, {str(shape)[1:]}")
    return array, False


def packing_of(space: Space[Any]) -> Packing:
    """The packing of a gymnasium space; InputError for a kind that has none (Text, Graph, Sequence, OneOf)."""
    return packing_from_json(encode_space(space, bounds=False))


def packing_from_json(doc: SpaceDoc) -> Packing:
    """The packing of a space that `encode_space` described."""
    leaves: list[Leaf] = []
    begin = 0
    for path, inner in _walk(doc, ()):
        leaf = _leaf(inner, path, begin)
        leaves.append(leaf)
        begin += leaf.size
    if not leaves:
        raise InputError("observation space has no entries: expected at least one number to observe")
    if doc["type"] not in ("Dict", "Tuple"):
        return Packing((leaves[0],), leaves[0].shape, _torch_dtype(np.dtype(leaves[0].dtype)), plain=True)
    common = np.result_type(*[_narrow(leaf) for leaf in leaves])
    return Packing(tuple(leaves), (begin,), _torch_dtype(common), plain=False)


def _walk(doc: SpaceDoc, path: Path) -> Iterator[tuple[Path, SpaceDoc]]:
    if doc["type"] == "Dict":
        for key, inner in entries_of(doc):
            yield from _walk(inner, (*path, key))
    elif doc["type"] == "Tuple":
        for index, inner in enumerate(doc["spaces"]):
            yield from _walk(inner, (*path, index))
    else:
        yield path, doc


def _leaf(doc: SpaceDoc, path: Path, begin: int) -> Leaf:
    if doc["type"] == "Box":
        if doc["dtype"] not in DTYPES:
            raise ValueError(f"dtype {brief(doc['dtype'])} is not known")
        return Leaf(path, sizes_of(doc["shape"]), doc["dtype"], begin)
    if doc["type"] == "MultiBinary":
        return Leaf(path, sizes_of(doc["shape"]), "int8", begin)
    if doc["type"] == "Discrete":
        return Leaf(path, (), "int64", begin, (int(doc["n"]),), (int(doc["start"]),))
    nvec = np.asarray(doc["nvec"])
    start = np.asarray(doc["start"]).ravel()
    return Leaf(path, nvec.shape, "int64", begin, tuple(map(int, nvec.ravel())), tuple(map(int, start)))


def _narrow(leaf: Leaf) -> np.dtype[Any]:
    """The smallest dtype for the leaf's values: choices are few, although gymnasium gives them 64 bits."""
    if not leaf.nvec:
        return np.dtype(leaf.dtype)
    highest = max(n + first for n, first in zip(leaf.nvec, leaf.start, strict=True))
    return np.result_type(np.min_scalar_type(min(*leaf.start, 0)), np.min_scalar_type(highest))


def _torch_dtype(dtype: np.dtype[Any]) -> str:
    """The dtype, or int64 for the wide unsigned ones, on which torch can do little."""
    return "int64" if dtype.kind == "u" and dtype.itemsize > 1 else str(dtype.newbyteorder("="))


def _choices(leaf: Leaf) -> Iterator[tuple[int, int, int]]:
    """(entry, first choice, one past the last) of every entry."""
    for index, (n, first) in enumerate(zip(leaf.nvec, leaf.start, strict=True)):
        yield index, first, first + n


def _at(observation: Any, path: Path) -> Any:
    for depth, key in enumerate(path):
        try:
            observation = observation[key]
        except (KeyError, IndexError, TypeError):
            where = ".".join(map(str, path[: depth + 1]))
            raise InputError(f"observation: has no entry {where!r}; expected the observation space's entries") from None
    return observation
