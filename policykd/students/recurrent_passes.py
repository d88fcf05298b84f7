"""A family of GRUs forward and backward through time in NumPy, on the family's own memory: for CPUs, where a step of a
small batch is too little work for torch's calls and its record of them (`python -m benchmarks updates`).

Products obey the rule of `policykd.students.lean`: their bits do not depend on the number of cores. The equations are
those of `policykd.students.gru`, and their derivatives.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from policykd.students.lean import F32, Product
from policykd.students.recurrent import GruFamily

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)


class GruPasses:
    """Forward and backward for mini-batches of B sequences of T steps; every buffer is allocated once."""

    def __init__(self, family: GruFamily, steps: int, batch: int) -> None:
        shape = (len(family), steps, batch, family.n_means)
        self.means: F32 = np.empty(shape, np.float32)  # [S, T, B, M], of the last forward
        self.d_means: F32 = np.empty(shape, np.float32)  # [S, T, B, M], for the next backward
        self._groups = [_Alike(family, rows, shape) for rows in _alike(family)]

    def forward(self, inputs: F32, before: list[Tensor]) -> None:
        """Fills `means` for normalised inputs [T, B, O] that all members share, from what each remembers [B, H] on."""
        for group in self._groups:
            group.forward(inputs, before, self.means)

    def backward(self) -> None:
        """Overwrites the family's gradient, but for `d_log_std`, with that of the loss whose slope is `d_means`."""
        for group in self._groups:
            group.backward(self.d_means)


def _alike(family: GruFamily) -> list[slice]:
    """Neighbouring members that remember as much as one another."""
    found, begin = [], 0
    for _, members in groupby(family.specs, lambda spec: spec.width):
        end = begin + len(list(members))
        found.append(slice(begin, end))
        begin = end
    return found


class _Alike:
    """G members of one width H, in products of [G, B, ...]. Rows of T steps lie one behind the other."""

    def __init__(self, family: GruFamily, rows: slice, shape: tuple[int, ...]) -> None:
        _, steps, batch, n_means = shape
        self._rows, self._batch, count = rows, batch, rows.stop - rows.start
        own, d_own = (_stacked(family, rows, flat) for flat in (family.flat, family.grad))
        hidden = own["gru.new_bias"].shape[1]
        flipped = {name: (own[name].transpose(0, 2, 1), d_own[name].transpose(0, 2, 1)) for name in _FLIPPED}
        everything = steps * batch
        self._input = Product(*flipped["gru.input"], everything)
        self._state = Product(*flipped["gru.state"], everything)
        self._step = Product(*flipped["gru.state"], batch)
        self._head = Product(own["head.weight"], d_own["head.weight"], everything)
        self._own, self._d_own, self._n_means = own, d_own, n_means
        self._seen = np.empty((count, steps, batch, 3 * hidden), np.float32)  # by the inputs; backward: its slope
        self._known = np.empty_like(self._seen)  # by the state; backward: its slope
        self._gates = np.empty((count, steps, batch, 2 * hidden), np.float32)  # r, z
        self._new = np.empty((count, steps, batch, hidden), np.float32)
        self._hidden = np.empty((count, steps + 1, batch, hidden), np.float32)
        self._slope = np.empty_like(self._new)  # of the loss by what is remembered after each step
        self._inputs: F32 = np.empty(0, np.float32)

    def forward(self, inputs: F32, before: list[Tensor], means: F32) -> None:
        steps, count, n = len(inputs), len(self._new), self._new.shape[3]
        self._inputs = inputs.reshape(1, -1, inputs.shape[2])
        self._input.forward(self._inputs, self._seen.reshape(count, -1, 3 * n))
        np.add(self._seen, self._own["gru.bias"][:, None, None], out=self._seen)
        np.stack([remembered.numpy() for remembered in before[self._rows]], out=self._hidden[:, 0])
        added = self._own["gru.new_bias"][:, None]
        for t in range(steps):
            h, seen, known, gates = self._hidden[:, t], self._seen[:, t], self._known[:, t], self._gates[:, t]
            new, after = self._new[:, t], self._hidden[:, t + 1]
            self._step.forward(h, known)
            known[..., 2 * n :] += added
            np.add(seen[..., : 2 * n], known[..., : 2 * n], out=gates)
            np.multiply(gates, _HALF, out=gates)  # the logistic function of x is (1 + tanh(x / 2)) / 2
            np.tanh(gates, out=gates)
            np.add(gates, _ONE, out=gates)
            np.multiply(gates, _HALF, out=gates)
            np.multiply(gates[..., :n], known[..., 2 * n :], out=new)
            np.add(new, seen[..., 2 * n :], out=new)
            np.tanh(new, out=new)
            np.subtract(h, new, out=after)
            np.multiply(after, gates[..., n:], out=after)
            np.add(after, new, out=after)
        out = means[self._rows].reshape(count, -1, self._n_means)
        self._head.forward(self._hidden[:, 1:].reshape(count, -1, n), out)
        np.add(out, self._own["head.bias"][:, None], out=out)

    def backward(self, d_means: F32) -> None:
        count, steps, _, n = self._new.shape
        slope = d_means[self._rows].reshape(count, -1, self._n_means)
        self._head.by_weights(self._hidden[:, 1:].reshape(count, -1, n), slope)
        np.add.reduce(slope, 1, out=self._d_own["head.bias"])
        self._head.by_inputs(slope, self._slope.reshape(count, -1, n))
        self._through_time(steps, n)
        d_seen, d_known = (x.reshape(count, -1, 3 * n) for x in (self._seen, self._known))
        self._input.by_weights(np.broadcast_to(self._inputs, (count, *self._inputs.shape[1:])), d_seen)
        self._state.by_weights(self._hidden[:, :-1].reshape(count, -1, n), d_known)
        np.add.reduce(d_seen, 1, out=self._d_own["gru.bias"])
        np.add.reduce(d_known[..., 2 * n :], 1, out=self._d_own["gru.new_bias"])

    def _through_time(self, steps: int, n: int) -> None:
        """Puts the slopes by `W x + b` and `U h + c` in place of these, from the last step to the first."""
        later: F32 = np.zeros_like(self._slope[:, 0])
        rest, gate_slope = np.empty_like(later), np.empty_like(self._gates[:, 0])
        for t in reversed(range(steps)):
            h, new, gates = self._hidden[:, t], self._new[:, t], self._gates[:, t]
            d_seen, d_known, z = self._seen[:, t], self._known[:, t], self._gates[:, t, :, n:]
            later += self._slope[:, t]
            d_new = d_seen[..., 2 * n :]
            np.subtract(_ONE, z, out=rest)
            np.multiply(rest, later, out=rest)  # of the candidate
            np.multiply(new, new, out=d_new)
            np.subtract(_ONE, d_new, out=d_new)
            np.multiply(d_new, rest, out=d_new)
            np.subtract(_ONE, gates, out=gate_slope)
            np.multiply(gate_slope, gates, out=gate_slope)
            np.multiply(d_new, d_known[..., 2 * n :], out=d_seen[..., :n])
            np.subtract(h, new, out=rest)
            np.multiply(rest, later, out=d_seen[..., n : 2 * n])
            d_seen[..., : 2 * n] *= gate_slope
            d_known[..., : 2 * n] = d_seen[..., : 2 * n]
            np.multiply(d_new, gates[..., :n], out=d_known[..., 2 * n :])
            np.multiply(later, z, out=later)
            self._step.by_inputs(d_known, rest)
            np.add(later, rest, out=later)


_FLIPPED = ("gru.input", "gru.state")


def _stacked(family: GruFamily, rows: slice, flat: Tensor) -> dict[str, F32]:
    """The weights of neighbouring members of one width by name, [G, ...] each, as views of a vector in the family's
    layout."""
    first = family.parts(rows.start, flat)
    found = {}
    for name, part in first.items():
        begin = part.storage_offset()
        each = family.parts(rows.start + 1, flat)[name].storage_offset() - begin if rows.stop - rows.start > 1 else 1
        shape, strides = (rows.stop - rows.start, *part.shape), (each, *part.stride())
        found[name] = torch.as_strided(flat, shape, strides, begin).numpy()
    return found
