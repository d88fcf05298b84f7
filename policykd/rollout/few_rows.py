"""A normalised MLP on a few rows, in as few calls of NumPy as it takes: between two steps of an environment every call
finds the caches cold, and costs more than what it computes (`python -m benchmarks collection`).

A bias is one more row of its layer's weights, for an input that is always 1; the scale of the observations is in the
first weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from policykd.spine.types import Array
from policykd.students.lean import ONE_THREAD
from policykd.students.normaliser import Normaliser

F32 = NDArray[np.float32]
Layer = tuple[F32, F32]  # weight [in, out], bias [out]
_MAKES_ONE = {"tanh": 20.0, "relu": 1.0}  # what the activation makes exactly 1 of


def few(batch: int, layers: Sequence[Layer]) -> bool:
    """Whether NumPy computes all products of this batch on one thread."""
    return all(batch * (len(weight) + 1) * (weight.shape[1] + 1) <= ONE_THREAD for weight, _ in layers)


class FewRows:
    """A `policykd.rollout.kernels.Kernel` for batches of one size, with the same activation after all layers but the
    last. Values equal `Normaliser.apply` and the layers to float32 rounding."""

    def __init__(
        self, batch: int, normaliser: Normaliser, layers: Sequence[Layer], activation: str, log_std: F32
    ) -> None:
        self.log_std = log_std
        self.means = _pass_of(batch, normaliser, layers, activation)


def _pass_of(batch: int, normaliser: Normaliser, layers: Sequence[Layer], activation: str) -> Callable[[Array], F32]:
    """From raw observations [B, O] to the last layer's outputs [B, M], which stand until the next call."""
    *hidden, last = _joined(normaliser, layers, activation)
    n = len(normaliser.mean)
    with np.errstate(divide="ignore"):
        reach = normaliser.limit / np.abs(normaliser.scale)
    mean, low, high = (_rows(row, one, batch) for row, one in ((normaliser.mean, 0), (-reach, 1), (reach, 1)))
    inputs = np.zeros((batch, n + 1), np.float32)  # the bounds of the last column keep it at 1
    observed, x, steps = inputs[:, :n], inputs, []
    for weight in hidden:
        out = np.empty((batch, weight.shape[1]), np.float32)
        steps.append((x, weight, out))
        x = out
    below, result = x, np.empty((batch, last.shape[1]), np.float32)
    dot, activate = np.dot, np.tanh if activation == "tanh" else _relu

    def run(observation: Array) -> F32:
        observed[...] = observation
        np.subtract(inputs, mean, inputs)
        np.maximum(inputs, low, out=inputs)
        np.minimum(inputs, high, out=inputs)
        for before, weight, after in steps:
            dot(before, weight, after)
            activate(after, after)
        dot(below, last, result)
        return result

    return run


def _relu(x: F32, out: F32) -> None:
    np.maximum(x, 0.0, out=out)


def _joined(normaliser: Normaliser, layers: Sequence[Layer], activation: str) -> list[F32]:
    """Weights [in + 1, out + 1] of the layers, and [in + 1, out] of the last."""
    joined = []
    for k, (weight, bias) in enumerate(layers):
        n_in, n_out = weight.shape
        is_last = k + 1 == len(layers)
        whole = np.zeros((n_in + 1, n_out if is_last else n_out + 1), np.float32)
        whole[:-1, :n_out] = weight * normaliser.scale[:, None] if k == 0 else weight
        whole[-1, :n_out] = bias.reshape(-1)
        if not is_last:
            whole[-1, -1] = _MAKES_ONE[activation]
        joined.append(whole)
    return joined


def _rows(row: Array, last: float, batch: int) -> F32:
    """The row [n] and one more number, written out `batch` times [B, n + 1]."""
    written = np.full((batch, len(row) + 1), last, np.float32)
    written[:, :-1] = row
    return written
