"""A family's forward and backward pass in NumPy, on the family's own memory: for CPUs, where between a small batch's
products torch's calls cost more than what they compute (`python -m benchmarks updates`).

NumPy computes a product of up to 2^18 multiply-accumulates on one thread on every machine; a larger one is cut along
the batch into pieces of that size, and one of more than 16 pieces is torch's, which obeys the run's `threads`. So bits
depend on shapes and not on the number of cores.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from policykd.students.family import Family, Group

F32 = NDArray[np.float32]
ONE_THREAD = 2**18  # multiply-accumulates up to which OpenBLAS does not split a product
_PIECES = 16  # of one product at most
_ONE = np.float32(1.0)


class Passes:
    """Forward and backward for mini-batches of B states; every buffer is allocated once."""

    def __init__(self, family: Family, batch: int) -> None:
        self._groups = [_GroupPasses(group, batch, family.activation) for group in family.groups]
        shape = (len(family), batch, family.n_means)
        self.means: F32 = np.empty(shape, np.float32)  # [S, B, M], of the last forward
        self.d_means: F32 = np.empty(shape, np.float32)  # [S, B, M], for the next backward
        self.log_std: F32 = family.log_std.numpy()  # [S, 1, A], the family's own
        self.d_log_std: F32 = family.d_log_std.numpy()  # [S, 1, A], the family's own

    def forward(self, inputs: F32) -> None:
        """Fills `means` for normalised inputs [B, O] that all members share."""
        for group in self._groups:
            group.forward(inputs, self.means)

    def backward(self) -> None:
        """Overwrites the family's gradient, but for `d_log_std`, with that of the loss whose slope is `d_means`."""
        for group in self._groups:
            group.backward(self.d_means)


class _GroupPasses:
    def __init__(self, group: Group, batch: int, activation: str) -> None:
        self._rows = group.members
        count = group.members.stop - group.members.start
        weights = [weight.numpy() for weight in group.weights]
        self._layers = [Product(w, d.numpy(), batch) for w, d in zip(weights, group.d_weights, strict=True)]
        self._biases = [bias.numpy() for bias in group.biases]
        self._d_biases = [bias.numpy() for bias in group.d_biases]
        hidden = [np.empty((count, batch, w.shape[2]), np.float32) for w in weights[:-1]]
        self._hidden = hidden  # outputs of the layers below the last
        self._deltas = [np.empty_like(x) for x in hidden]
        self._scratch = [np.empty_like(x) for x in hidden]
        self._ones = np.ones((1, 1, batch), np.float32)
        self._inputs: F32 = np.empty(0, np.float32)
        self._tanh = activation == "tanh"

    def forward(self, inputs: F32, means: F32) -> None:
        self._inputs = x = inputs[None]
        for k, out in enumerate([*self._hidden, means[self._rows]]):
            self._layers[k].forward(x, out)
            np.add(out, self._biases[k], out=out)
            if k < len(self._hidden):
                np.tanh(out, out=out) if self._tanh else np.maximum(out, 0.0, out=out)
            x = out

    def backward(self, d_means: F32) -> None:
        delta = d_means[self._rows]
        for k in reversed(range(len(self._layers))):
            x = self._hidden[k - 1] if k else self._inputs
            self._layers[k].by_weights(x, delta)
            np.matmul(self._ones, delta, out=self._d_biases[k])
            if k:
                below, scratch = self._deltas[k - 1], self._scratch[k - 1]
                self._layers[k].by_inputs(delta, below)
                if self._tanh:
                    np.multiply(x, x, out=scratch)
                    np.subtract(_ONE, scratch, out=scratch)
                    np.multiply(below, scratch, out=below)
                else:
                    np.multiply(below, x > 0, out=below)
                delta = below


class Product:
    """The three products of one dense layer, weight [G, I, O], on batches x [G or 1, B, I]: whole or in pieces."""

    def __init__(self, weight: F32, d_weight: F32, batch: int) -> None:
        self._weight, self._d_weight = weight, d_weight
        self._pieces = _pieces(batch, weight.shape[1] * weight.shape[2])
        self._parts: F32 = np.empty((len(weight), self._pieces or 0, *weight.shape[1:]), np.float32)

    def forward(self, x: F32, out: F32) -> None:
        """out [G, B, O] = x @ weight."""
        self._rows(x, self._weight, out)

    def by_inputs(self, delta: F32, out: F32) -> None:
        """out [G, B, I] = delta [G, B, O] @ weight^T."""
        self._rows(delta, self._weight.transpose(0, 2, 1), out)

    def by_weights(self, x: F32, delta: F32) -> None:
        """Overwrites the weight's gradient with x^T @ delta."""
        if self._pieces == 1:
            np.matmul(x.transpose(0, 2, 1), delta, out=self._d_weight)
        elif self._pieces:
            np.matmul(self._cut(x).transpose(0, 1, 3, 2), self._cut(delta), out=self._parts)
            np.add.reduce(self._parts, 1, out=self._d_weight)
        else:
            _by_torch(x.transpose(0, 2, 1), delta, self._d_weight)

    def _rows(self, x: F32, weight: F32, out: F32) -> None:
        if self._pieces == 1:
            np.matmul(x, weight, out=out)
        elif self._pieces:
            np.matmul(self._cut(x), weight[:, None], out=self._cut(out))
        else:
            _by_torch(x, weight, out)

    def _cut(self, x: F32) -> F32:
        """[G, pieces, B / pieces, n], a view."""
        return x.reshape(len(x), self._pieces, -1, x.shape[2])


def _pieces(batch: int, macs_per_state: int) -> int:
    """Into how many equal pieces a batch is cut; 0 where it cannot be."""
    most = min(_PIECES, batch)
    return next((n for n in range(1, most + 1) if batch % n == 0 and batch // n * macs_per_state <= ONE_THREAD), 0)


def _by_torch(a: F32, b: F32, out: F32) -> None:
    first = torch.from_numpy(a)
    torch.bmm(first.expand(len(out), -1, -1), torch.from_numpy(b), out=torch.from_numpy(out))
