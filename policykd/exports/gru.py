"""A gated recurrent unit as a layer of a graph, and one step of it with NumPy in any precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Gru:
    """From inputs x [B, I] and what is remembered h [B, H] to what is remembered next, which is also what comes out:

      r, z = sigmoid(W x + b + U h)
      n    = tanh(W_n x + b_n + r * (U_n h + c))
      h'   = n + z * (h - n)

    W [3H, I], U [3H, H], b [3H], gates one after the other (r, z, n), and c [H], as `policykd.students.gru` has them
    (Cho et al. 2014, arXiv:1406.1078).
    """

    inputs: Floats  # W
    state: Floats  # U
    bias: Floats  # b
    new_bias: Floats  # c

    @property
    def size(self) -> int:
        """H."""
        return int(self.new_bias.size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one step."""
        return int(self.inputs.size + self.state.size)

    @property
    def arrays(self) -> dict[str, Floats]:
        """Everything that was learned, by its name in messages."""
        return {"gru.input": self.inputs, "gru.state": self.state, "gru.bias": self.bias, "gru.new_bias": self.new_bias}

    @property
    def params(self) -> int:
        """How many numbers were learned."""
        return sum(part.size for part in self.arrays.values())


def begun(state: Any, start: Any, n: int, layer: Gru, dtype: Any) -> Array:
    """What n rows remember, [B, H]: `state` [B, H], nothing (0) where it is None or `start` [B] says that an episode
    begins, whatever `state` holds there."""
    if state is None:
        return np.zeros((n, layer.size), dtype)
    known = np.asarray(state).astype(dtype)
    return known if start is None else np.where(np.asarray(start, np.bool_)[:, None], dtype(0), known)


def advanced(layer: Gru, x: Array, hidden: Array) -> Array:
    """What is remembered next, [B, H], in the dtype of inputs x [B, I]; `hidden` [B, H] is what is remembered now."""
    w, u, b, c = (part.astype(x.dtype) for part in layer.arrays.values())
    n = layer.size
    seen, known = x @ w.T + b, hidden @ u.T
    gates = 0.5 + 0.5 * np.tanh(0.5 * (seen[:, : 2 * n] + known[:, : 2 * n]))  # the logistic function
    new = np.tanh(seen[:, 2 * n :] + gates[:, :n] * (known[:, 2 * n :] + c))
    return np.asarray(new + gates[:, n:] * (hidden - new))
