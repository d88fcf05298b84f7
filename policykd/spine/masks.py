"""Action masks in the layout of sb3-contrib's MaskablePPO, with NumPy alone.

A mask [..., n] says which choices an environment allows now (True = allowed): Discrete n; MultiDiscrete the branches
side by side, sum(nvec); MultiBinary two per bit, off then on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.errors import InputError, NumericsError

Array = NDArray[Any]
Bools = NDArray[np.bool_]


def branches(distribution: dict[str, Any]) -> tuple[int, ...]:
    """The sizes of the choices that a mask lists, for a distribution's JSON document.

    InputError for a distribution that cannot be masked.
    """
    kind = distribution["type"]
    if kind == "Categorical":
        return (int(distribution["n"]),)
    if kind == "MultiCategorical":
        return tuple(int(n) for n in distribution["nvec"])
    if kind == "Bernoulli":
        return (2,) * int(distribution["n"])
    raise InputError(f"actions of a {kind} cannot be masked: expected Discrete, MultiDiscrete or MultiBinary actions")


def as_mask(mask: Any, shape: tuple[int, ...], sizes: tuple[int, ...], where: str) -> Bools:
    """`mask` as booleans [*shape, sum(sizes)].

    InputError for a wrong size, NumericsError where a choice has no allowed action; both begin with `where`.
    """
    array = np.asarray(mask)
    if array.dtype.kind not in "biuf" or array.size != int(np.prod(shape)) * sum(sizes):
        raise InputError(
            f"{where}: the action mask has shape {array.shape} and dtype {array.dtype}, expected "
            f"{(*shape, sum(sizes))} booleans (True = allowed; MultiBinary: two per bit, off then on)"
        )
    allowed = array.astype(np.bool_).reshape(*shape, sum(sizes))
    starts = np.cumsum((0, *sizes[:-1]))
    empty = ~np.logical_or.reduceat(allowed, starts, axis=-1)
    if empty.any():
        row, branch = tuple(np.argwhere(empty)[0][:-1].tolist()), int(np.argwhere(empty)[0][-1])
        row_text = f"row {', '.join(map(str, row))} of " if row else ""
        raise NumericsError(
            f"{where}: {row_text}the action mask allows nothing in choice {branch} of {len(sizes)}; every choice needs "
            "at least one allowed action"
        )
    return allowed


def masked_logits(distribution: dict[str, Any], logits: Array, mask: Bools) -> Array:
    """Logits [B, P] with -inf where `mask` [B, n] forbids; a bit with one side left has logit -inf or inf."""
    if distribution["type"] != "Bernoulli":
        return np.where(mask, logits, np.float32(-np.inf))
    off, on = mask[..., 0::2], mask[..., 1::2]
    return np.where(on, np.where(off, logits, np.float32(np.inf)), np.float32(-np.inf))
