"""What may be done to an environment's observations, actions and own numbers, as data (docs/robust.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.packing import Leaf, Packing
from policykd.spine.types import Array

if TYPE_CHECKING:
    from gymnasium import Space


@dataclass(frozen=True)
class Disturbance:
    """noise: the standard deviation of what is added to each number of a packed observation [*O], None for nothing;
    delay: steps; drop: a probability; parameters: (path, lowest, highest factor) each. Every random number follows
    from the episode's seed alone."""

    noise: NDArray[np.float32] | None = field(default=None, compare=False)
    delay: int = 0
    drop: float = 0.0
    parameters: tuple[tuple[str, float, float], ...] = ()

    @property
    def signals(self) -> bool:
        """Whether something is done between policy and environment, whatever the backend."""
        return self.noise is not None or self.delay > 0 or self.drop > 0


_ROWS = 64  # of visited states at once


@dataclass(frozen=True)
class Bounds:
    """Of the numbers of a packed observation [*O]: where noise may not lead out of, and which are whole."""

    low: Array
    high: Array
    whole: NDArray[np.bool_]


def is_image(leaf: Leaf) -> bool:
    """Pixels: noise on them is a part of their range, and stays inside it."""
    return leaf.dtype == "uint8" or len(leaf.shape) > 2


def noise_unit(space: Space[Any], packing: Packing, visited: Array) -> NDArray[np.float32]:
    """What noise of 1 means for each number of a packed observation [*O]: its standard deviation over `visited`
    [K, *O]; the range of an image's Box, where it has one; 0 for choices and bits, which are not numbers."""
    unit = _spread(visited)
    for leaf, box in _boxes(space, packing):
        part = _part(unit, leaf, packing)
        if box is None:
            part[...] = 0.0
        elif is_image(leaf):
            width = np.asarray(box.high, np.float64) - np.asarray(box.low, np.float64)
            np.copyto(part, width.reshape(part.shape), where=np.isfinite(width).reshape(part.shape))
    return np.asarray(unit, np.float32)


def _spread(visited: Array) -> NDArray[np.float64]:
    """The standard deviation of each number [*O] over [K, *O], without a copy of all in float64."""
    begins = range(0, len(visited), _ROWS)
    mean, squares = (np.zeros(visited.shape[1:]) for _ in range(2))
    for begin in begins:
        mean += visited[begin : begin + _ROWS].sum(0, dtype=np.float64) / len(visited)
    for begin in begins:
        squares += np.square(visited[begin : begin + _ROWS] - mean).sum(0)
    return np.asarray(np.sqrt(squares / len(visited))).reshape(visited.shape[1:])


def bounds(space: Space[Any], packing: Packing) -> Bounds:
    """Images and whole numbers stay inside their Box; other numbers may leave it, as a sensor's do."""
    low, high = np.full(packing.shape, -np.inf), np.full(packing.shape, np.inf)
    whole = np.zeros(packing.shape, np.bool_)
    for leaf, box in _boxes(space, packing):
        rounded = np.dtype(leaf.dtype).kind != "f"
        _part(whole, leaf, packing)[...] = rounded
        if box is not None and (rounded or is_image(leaf)):
            for values, limit in ((low, box.low), (high, box.high)):
                part = _part(values, leaf, packing)
                part[...] = np.asarray(limit, np.float64).reshape(part.shape)
    return Bounds(low, high, whole)


def neutral(space: Space[Any]) -> Array:
    """The action of an environment that nobody steers [*A]: the middle of a Box (0, or the bound nearest to it, where
    that is infinite), the lowest choice."""
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
        finite = np.isfinite(low) & np.isfinite(high)
        middle = np.where(finite, low, 0.0) / 2 + np.where(finite, high, 0.0) / 2
        middle = np.where(finite, middle, np.clip(0.0, low, high))
        return middle.astype(space.dtype)
    return first_choice(space)


def first_choice(space: Space[Any]) -> Array:
    """The lowest choice of each entry of a space of choices or bits [*A]."""
    start = getattr(space, "start", 0)
    return np.broadcast_to(np.asarray(start), space.shape or ()).copy()


def _boxes(space: Space[Any], packing: Packing) -> list[tuple[Leaf, Any]]:
    """Each leaf with its Box; None for choices and bits."""
    from gymnasium import spaces

    found: list[tuple[Leaf, Any]] = []
    for leaf in packing.leaves:
        inner: Any = space
        for key in leaf.path:
            inner = inner[key]
        numeric = isinstance(inner, spaces.Box) and np.dtype(inner.dtype).kind != "b"
        found.append((leaf, inner if numeric else None))
    return found


def _part(values: Array, leaf: Leaf, packing: Packing) -> Array:
    """The numbers of one leaf: a view."""
    return values[...] if packing.plain else values[leaf.begin : leaf.begin + leaf.size]
