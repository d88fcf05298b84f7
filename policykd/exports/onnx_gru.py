"""A graph's Gru as ONNX nodes: plain operators that every opset from 11 to 21 has alike, and every reader.

ONNX has a GRU of its own (with linear_before_reset = 1 it is this one, gates in the order z, r, n), but for whole
sequences, with a state of three dimensions, and without a reset; and few small runtimes know it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from policykd.exports.gru import Gru
from policykd.exports.interface import START, STATE_IN, STATE_OUT


class Nodes(Protocol):
    """Nodes and weights so far."""

    def weight(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """A constant; returns its name."""
        ...

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """A node with one output, of that name; returns it."""
        ...

    def made(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """A node whose output gets a name of its own; returns that."""
        ...


def gru_nodes(nodes: Nodes, layer: Gru, x: str) -> str:
    """The next state [batch, H], which is also what comes out, for inputs x [batch, I]."""
    begins = nodes.made("Reshape", [START, nodes.weight("start_shape", [-1, 1], np.int64)], "begins")
    hidden = nodes.made("Where", [begins, nodes.weight("nothing_known", [[0.0]]), STATE_IN], "known")
    both = nodes.made("Concat", [x, hidden], "seen_and_known", axis=1)
    n = layer.size
    rows = {"reset": slice(0, n), "keep": slice(n, 2 * n), "new": slice(2 * n, 3 * n)}
    gates = {}
    for name in ("reset", "keep"):
        weight = np.concatenate([layer.inputs[rows[name]], layer.state[rows[name]]], 1).T
        gates[name] = nodes.made("Sigmoid", [_sum(nodes, both, weight, layer.bias[rows[name]], name)], name)
    seen = _sum(nodes, x, layer.inputs[rows["new"]].T, layer.bias[rows["new"]], "new_seen")
    known = _sum(nodes, hidden, layer.state[rows["new"]].T, layer.new_bias, "new_known")
    known = nodes.made("Mul", [gates["reset"], known], "new_kept")
    new = nodes.made("Tanh", [nodes.made("Add", [seen, known], "new_sum")], "new")
    change = nodes.made("Sub", [hidden, new], "change")
    return nodes.add("Add", [new, nodes.made("Mul", [gates["keep"], change], "kept")], STATE_OUT)


def _sum(nodes: Nodes, x: str, weight: Any, bias: Any, name: str) -> str:
    parts = [nodes.weight(f"{name}_weight", np.ascontiguousarray(weight)), nodes.weight(f"{name}_bias", bias)]
    return nodes.made("Gemm", [x, *parts], f"{name}_gemm")
