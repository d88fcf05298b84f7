"""The nodes of an ONNX model for a graph, by onnx.helper: the same operators at every opset from 11 to 21."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

import policykd
from policykd.exports.graph import Array, Dense, Graph, Port
from policykd.exports.gru import Gru
from policykd.exports.interface import ACTION, MASK, NOISE, START, STATE_IN, STATE_OUT, interface_of
from policykd.exports.onnx_gru import gru_nodes
from policykd.exports.onnx_layers import LARGEST, Nodes, columns, layer_nodes

_FLOAT, _BOOL, _INT64 = 1, 9, 7  # TensorProto.DataType
_TYPES = {"float32": _FLOAT, "bool": _BOOL, "int64": _INT64, "int8": 3, "uint8": 2}


def model_of(graph: Graph, opset: int, metadata: dict[str, Any]) -> Any:
    """An onnx.ModelProto: inputs by the ports' names, `action_masks`, `noise`, `state_in`, `episode_start`; outputs
    `action`, those of the distribution, `state_out`. `metadata` and the interface are JSON in its properties."""
    from onnx import helper

    nodes = Nodes(_prefix(graph))
    x = _features(nodes, graph)
    last = max((i for i, layer in enumerate(graph.layers) if isinstance(layer, Dense)), default=-1)
    for index, layer in enumerate(graph.layers):
        if isinstance(layer, Gru):
            x = gru_nodes(nodes, layer, x)
            continue
        named = graph.with_distribution and index == last == len(graph.layers) - 1
        x = layer_nodes(nodes, str(index), layer, x, graph.distribution_names[0] if named else "")
    _spread(nodes, graph, x)
    _action(nodes, graph, x)
    inputs = [_value(port.name, "int64" if port.nvec else "float32", port.shape) for port in graph.ports]
    if graph.masked:
        inputs.append(_value(MASK, "bool", (graph.head.mask_size,)))
    if graph.stochastic:
        inputs.append(_value(NOISE, "float32", (graph.head.size,)))
    if graph.state_size:
        inputs += [_value(STATE_IN, "float32", (graph.state_size,)), _value(START, "bool", ())]
    outputs = [_value(ACTION, _action_type(graph), graph.action.shape)]
    if graph.with_distribution:
        outputs += [_value(name, "float32", (graph.head.size,)) for name in graph.distribution_names]
    if graph.state_size:
        outputs.append(_value(STATE_OUT, "float32", (graph.state_size,)))
    operators = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(nodes.nodes, "policy", inputs, outputs, nodes.weights),
        opset_imports=operators,
        ir_version=helper.find_min_ir_version_for(operators),
        producer_name="policykd",
        producer_version=policykd.__version__,
    )
    documents = {"interface": interface_of(graph).to_json(), "metadata": metadata}
    texts = {key: json.dumps(doc, sort_keys=True, allow_nan=False) for key, doc in documents.items()}
    helper.set_model_props(model, texts)
    return model


def _prefix(graph: Graph) -> str:
    prefix = "policy/"
    while any(port.name.startswith(prefix) for port in graph.ports):
        prefix += "/"
    return prefix


def _value(name: str, dtype: str, shape: tuple[int, ...]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, _TYPES[dtype], ["batch", *shape])


def _features(nodes: Nodes, graph: Graph) -> str:
    parts = [_port(nodes, index, port) for index, port in enumerate(graph.ports)]
    return parts[0] if len(parts) == 1 else nodes.made("Concat", parts, "features", axis=1)


def _port(nodes: Nodes, index: int, port: Port) -> str:
    """Features [batch, F] of an input."""
    flat = port.name
    if len(port.shape) != 1:
        flat = nodes.made("Flatten", [flat], f"flat_{index}", axis=1)
    if not port.nvec:
        return flat
    ranges = [np.arange(first, first + n) for n, first in zip(port.nvec, port.start, strict=True)]
    if len(ranges) > 1:  # every number beside each of its choices
        entries = nodes.weight(f"entries_{index}", np.repeat(np.arange(len(ranges)), port.nvec), np.int64)
        flat = nodes.made("Gather", [flat, entries], f"repeated_{index}", axis=1)
    choices = nodes.weight(f"choices_{index}", np.concatenate(ranges)[None], np.int64)
    hot = nodes.made("Equal", [flat, choices], f"equal_{index}")
    return nodes.made("Cast", [hot], f"onehot_{index}", to=_FLOAT)


def _spread(nodes: Nodes, graph: Graph, x: str) -> None:
    """The outputs of the distribution that are no layer's result already."""
    if not graph.with_distribution:
        return
    first, *rest = graph.distribution_names
    if x != first:
        nodes.add("Identity", [x], first)
    if rest:
        # the same for every row, NaN or not; the size of an Expand is not inferred before opset 13
        positive = nodes.made("Greater", [x, nodes.weight("nothing", [[0.0]])], "positive")
        log_std = nodes.weight("log_std", graph.head.log_std[None])
        nodes.add("Where", [positive, log_std, log_std], rest[0])


def _action(nodes: Nodes, graph: Graph, x: str) -> None:
    head = graph.head
    if head.kind == "numbers":
        if graph.stochastic:
            std = nodes.weight("std", np.exp(head.log_std.astype(np.float64)))
            x = nodes.made("Add", [x, nodes.made("Mul", [NOISE, std], "deviation")], "sample")
        x = _bounded(nodes, graph, nodes.made("Tanh", [x], "squashed") if head.squash else x)
    else:
        if graph.stochastic:
            x = nodes.made("Add", [x, NOISE], "noisy")
        x = _chosen(nodes, graph, x) if head.kind == "choices" else _bits(nodes, graph, x)
    shape = graph.action.shape
    if len(shape) == 1:
        nodes.add("Identity", [x], ACTION)
    else:  # -1: the batch
        nodes.add("Reshape", [x, nodes.weight("action_shape", [-1, *shape], np.int64)], ACTION)


def _bounded(nodes: Nodes, graph: Graph, x: str) -> str:
    """Clipped or unscaled to the action's bounds."""
    action = graph.action
    low, high = (np.clip(np.asarray(bound, np.float32), -LARGEST, LARGEST) for bound in (action.low, action.high))
    if action.kind == "clip":
        x = _limit(nodes, "Max", x, low, "action_low") if np.isfinite(action.low).any() else x
        return _limit(nodes, "Min", x, high, "action_high") if np.isfinite(action.high).any() else x
    ends = [nodes.weight("unit_low", -1.0), nodes.weight("unit_high", 1.0)]
    x = nodes.made("Clip", [x, *ends], "unit")
    x = nodes.made("Add", [x, nodes.weight("one", 1.0)], "shifted")
    x = nodes.made("Mul", [x, nodes.weight("half", 0.5)], "share")
    x = nodes.made("Mul", [x, nodes.weight("action_span", high - low)], "stretched")
    return nodes.made("Add", [x, nodes.weight("action_low", low)], "bounded")


def _limit(nodes: Nodes, operator: str, x: str, bound: Array, name: str) -> str:
    return nodes.made(operator, [x, nodes.weight(name, bound[None])], f"{name}_kept")


def _chosen(nodes: Nodes, graph: Graph, x: str) -> str:
    """Choices [batch, K], int64, of logits [batch, M]."""
    branches = graph.head.branches
    if graph.masked:
        x = nodes.made("Where", [MASK, x, nodes.weight("forbidden", [[-LARGEST]])], "allowed")
    picked = _best(nodes, branches, x)
    if not any(graph.action.start):
        return picked
    return nodes.made("Add", [picked, nodes.weight("start", [graph.action.start], np.int64)], "numbered")


def _best(nodes: Nodes, branches: tuple[int, ...], x: str) -> str:
    """The highest of each branch, the first where several are: [batch, K]."""
    if len(set(branches)) == 1:
        shape = nodes.weight("branches", [-1, len(branches), branches[0]], np.int64)
        x = nodes.made("Reshape", [x, shape], "by_branch")
        return nodes.made("ArgMax", [x], "best", axis=2, keepdims=0)
    parts, at = [], 0
    for index, n in enumerate(branches):
        part = columns(nodes, x, at, at + n, f"branch_{index}")
        parts.append(nodes.made("ArgMax", [part], f"best_{index}", axis=1, keepdims=1))
        at += n
    return nodes.made("Concat", parts, "best", axis=1)


def _bits(nodes: Nodes, graph: Graph, x: str) -> str:
    """Bits [batch, M] of logits [batch, M]; with a mask, one side that is left alone is taken."""
    if graph.masked:
        size = graph.head.size
        pair = nodes.made("Reshape", [MASK, nodes.weight("pairs", [-1, size, 2], np.int64)], "mask_pairs")
        off, on = (_side(nodes, pair, side, size) for side in (0, 1))
        must = nodes.made("Where", [off, x, nodes.weight("certain", [[1.0]])], "unless_off")
        x = nodes.made("Where", [on, must, nodes.weight("never", [[-1.0]])], "unless_on")
    bits = nodes.made("Greater", [x, nodes.weight("zero", [[0.0]])], "bits")
    return nodes.made("Cast", [bits], "bit_numbers", to=_TYPES[_action_type(graph)])


def _side(nodes: Nodes, pair: str, side: int, size: int) -> str:
    """One side of a mask's pairs [batch, M, 2]."""
    name = ("off", "on")[side]
    index = nodes.weight(f"{name}_index", side, np.int64)
    picked = nodes.made("Gather", [pair, index], f"{name}_picked", axis=2)
    return nodes.made("Reshape", [picked, nodes.weight(f"{name}_shape", [-1, size], np.int64)], name)


def _action_type(graph: Graph) -> str:
    kinds = {"choices": "int64", "numbers": "float32", "bits": "uint8" if graph.action.dtype == "uint8" else "int8"}
    return kinds[graph.head.kind]
