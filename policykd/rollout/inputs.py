"""Normalising small batches of observations in NumPy, in arrays that are allocated once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from policykd.spine.types import Array
from policykd.students.normaliser import Normaliser
from policykd.teachers.normalize import Normalizer

F32 = NDArray[np.float32]
Normalise = Callable[[Array], F32]


def full(row: Array, batch: int) -> Array:
    """The row [n] written out `batch` times [batch, n]."""
    return np.ascontiguousarray(np.broadcast_to(row, (batch, len(row))))


def as_float(n_inputs: int) -> Callable[[int], Normalise]:
    """Observations [B, O] as they are, in float32; these functions give what makes the normaliser of one size B."""

    def planned(batch: int) -> Normalise:
        x = np.empty((batch, n_inputs), np.float32)

        def apply(seen: Array) -> F32:
            x[...] = seen
            return x

        return apply

    return planned


def standardised(statistics: Normalizer) -> Callable[[int], Normalise]:
    """As `TensorNormalizer`: in float64, then float32."""

    def planned(batch: int) -> Normalise:
        mean, std = (full(np.asarray(row, np.float64), batch) for row in (statistics.mean, statistics.std))
        high, x = np.full(mean.shape, statistics.clip), np.empty(mean.shape, np.float32)
        low, scaled = -high, np.empty(mean.shape)

        def apply(seen: Array) -> F32:
            np.subtract(seen, mean, out=scaled)
            np.divide(scaled, std, out=scaled)
            np.maximum(scaled, low, out=scaled)
            np.minimum(scaled, high, out=scaled)
            x[...] = scaled
            return x

        return apply

    return planned


def scaled(normaliser: Normaliser) -> Callable[[int], Normalise]:
    """As `Normaliser.apply`."""

    def planned(batch: int) -> Normalise:
        mean, scale = full(normaliser.mean, batch), full(normaliser.scale, batch)
        high, x = np.full(mean.shape, normaliser.limit, np.float32), np.empty(mean.shape, np.float32)
        low = -high

        def apply(seen: Array) -> F32:
            x[...] = seen
            np.subtract(x, mean, out=x)
            np.multiply(x, scale, out=x)
            np.maximum(x, low, out=x)
            np.minimum(x, high, out=x)
            return x

        return apply

    return planned
