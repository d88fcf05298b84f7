"""From an action of the distribution to an action of the environment: clip, unscale, offset, shape. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from policykd.spine.errors import brief

Array = NDArray[Any]
DTYPES = frozenset(
    {"bool", "float16", "float32", "float64", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))}
)
"""What a document may name; `np.dtype` itself parses, and evaluates, whatever text it is given."""
_MAX_DIMS = 32
Kind = Literal["discrete", "multi_discrete", "multi_binary", "clip", "unscale"]


@dataclass(frozen=True)
class ActionMap:
    """How a batch of distribution actions becomes a batch of environment actions.

    `kind`:
      discrete        index [B] -> index + start, int64 [B]
      multi_discrete  indices [B, K] -> indices + start, int64 [B, *shape]
      multi_binary    bits [B, n] -> int8 [B, *shape]
      clip            values [B, A] in environment units -> clipped to [low, high], [B, *shape]
      unscale         values [B, A] in [-1, 1] -> clipped to it, then low + (a + 1) / 2 * (high - low), [B, *shape]

    The formulas and their order are those of stable-baselines3, so that equal inputs give equal bits.
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    dtype: str = "int64"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    start: tuple[int, ...] = ()

    def __call__(self, actions: Array) -> Array:
        """Environment actions [B, *shape] for distribution actions [B] or [B, A]."""
        batch = (len(actions), *self.shape)
        if self.kind == "discrete":
            return np.asarray(actions.astype(np.int64) + (self.start[0] if self.start else 0))
        if self.kind == "multi_discrete":
            offset = np.asarray(self.start, np.int64) if self.start else 0
            return (actions.astype(np.int64) + offset).reshape(batch)
        if self.kind == "multi_binary":
            return actions.astype(self.dtype).reshape(batch)
        low, high = self._bounds
        if self.kind == "clip":
            inside = np.minimum(np.maximum(actions, low), high)  # np.clip, at half its cost
            return inside.astype(self.dtype, copy=False).reshape(batch)
        unit = np.clip(actions, -1.0, 1.0)
        scaled = np.asarray(low + (0.5 * (unit + 1.0) * (high - low)))
        return scaled.astype(self.dtype, copy=False).reshape(batch)

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        return np.asarray(self.low, self.dtype), np.asarray(self.high, self.dtype)

    def to_json(self) -> dict[str, Any]:
        """A JSON document from which `from_json` makes an equal map (infinite bounds are the strings inf, -inf)."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "low": [_number(x) for x in self.low],
            "high": [_number(x) for x in self.high],
            "start": list(self.start),
        }

    @classmethod
    def from_json(cls, doc: dict[str, Any]) -> ActionMap:
        """The inverse of `to_json`; ValueError for an unknown kind or bounds that do not fit the shape."""
        kind, shape, low, high = doc["kind"], sizes_of(doc["shape"]), doc["low"], doc["high"]
        if kind not in get_args(Kind):
            raise ValueError(f"action map kind {brief(kind)} is not known: expected one of {', '.join(get_args(Kind))}")
        if kind in ("clip", "unscale") and not len(low) == len(high) == math.prod(shape):
            raise ValueError(f"action map has {len(low)} and {len(high)} bounds for the shape {shape}")
        if doc["dtype"] not in DTYPES:
            raise ValueError(f"action map dtype {brief(doc['dtype'])} is not known: expected a numeric one of numpy")
        return cls(
            kind=kind,
            shape=shape,
            dtype=doc["dtype"],
            low=tuple(float(x) for x in low),
            high=tuple(float(x) for x in high),
            start=tuple(int(x) for x in doc["start"]),
        )


def sizes_of(values: Any, most: int = _MAX_DIMS) -> tuple[int, ...]:
    """A shape out of a document: at most `most` whole numbers from 0 to 2^31; ValueError for anything else.

    Checked before they are multiplied: a product of texts or of long numbers would fill the memory.
    """
    if not isinstance(values, list) or len(values) > most:
        raise ValueError(f"expected a list of at most {most} sizes, found a {type(values).__name__}")
    if not all(type(value) is int and 0 <= value <= 2**31 for value in values):
        raise ValueError("sizes must be whole numbers from 0 to 2^31")
    return tuple(values)


def _number(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)
