"""The nodes of each layer in an ONNX model; results are rows [batch, F] again. The same at every opset from 11 on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policykd.exports.layers import Activate, ChannelsFirst, Conv, Dense, Normalise, Parallel, Residual, Stateless, Tree
from policykd.exports.tree_products import products_of

LARGEST = float(np.finfo(np.float32).max)
"""In place of infinity, which readers of ONNX files need not take."""


@dataclass
class Nodes:
    """Nodes and weights so far. Names that are made here begin with `prefix`, which no input does."""

    prefix: str
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def weight(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """A constant; returns its full name."""
        from onnx import numpy_helper

        full = f"{self.prefix}{name}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), full))
        return full

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """A node with one output, of that name unless it is made here; returns the output's name."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def made(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """The same, of a name that is made here."""
        return self.add(operator, inputs, f"{self.prefix}{name}", **attributes)


def columns(nodes: Nodes, x: str, begin: int, end: int, name: str) -> str:
    """Columns begin to end of x [batch, n]."""
    bounds = [
        nodes.weight(f"{name}/{key}", [at], np.int64) for key, at in (("begin", begin), ("end", end), ("axis", 1))
    ]
    return nodes.made("Slice", [x, *bounds], name)


def layer_nodes(nodes: Nodes, index: str, layer: Stateless, x: str, output: str = "") -> str:
    """One layer, at that position; the result of a Dense is called `output` where that is given."""
    if isinstance(layer, Dense):
        weight, bias = _weight(nodes, index, layer), nodes.weight(f"bias_{index}", layer.bias)
        return nodes.add("Gemm", [x, weight, bias], output or f"{nodes.prefix}dense_{index}")
    if isinstance(layer, Activate):
        return nodes.made("Tanh" if layer.kind == "tanh" else "Relu", [x], f"{layer.kind}_{index}")
    if isinstance(layer, Normalise):
        return _normalise(nodes, index, layer, x)
    if isinstance(layer, ChannelsFirst):
        x = _shaped(nodes, x, f"pixels_{index}", layer.height, layer.width, layer.channels)
        return _flat(nodes, nodes.made("Transpose", [x], f"planes_{index}", perm=[0, 3, 1, 2]), index)
    if isinstance(layer, Tree):
        return _tree(nodes, index, layer, x)
    if isinstance(layer, Conv):
        return _conv(nodes, index, layer, x)
    if isinstance(layer, Residual):
        return nodes.made("Add", [x, _chain(nodes, f"{index}_", layer.layers, x)], f"sum_{index}")
    return _parallel(nodes, index, layer, x)


def _weight(nodes: Nodes, index: str, layer: Dense) -> str:
    """As it is, or as whole numbers that the runtime multiplies with their scales, once.

    By Cast and Mul, since ONNX Runtime (1.31) puts a kernel that rounds the layer's inputs as well in the place of
    DequantizeLinear and Gemm: outputs were off by 5e-3.
    """
    if layer.scale is None:
        return nodes.weight(f"weight_{index}", layer.weight)
    steps = nodes.made("Cast", [nodes.weight(f"whole_{index}", layer.whole, np.int8)], f"steps_{index}", to=1)
    return nodes.made("Mul", [steps, nodes.weight(f"scale_{index}", layer.scale)], f"weight_{index}")


def _normalise(nodes: Nodes, index: str, layer: Normalise, x: str) -> str:
    shared = layer.repeat > 1
    mean, scale = (values[:, None] if shared else values for values in (layer.mean, layer.scale))
    if shared:
        x = _shaped(nodes, x, f"channels_{index}", len(mean), layer.repeat)
    x = nodes.made("Sub", [x, nodes.weight(f"mean_{index}", mean)], f"centred_{index}")
    x = nodes.made("Mul", [x, nodes.weight(f"scale_{index}", scale)], f"scaled_{index}")
    if layer.limit < LARGEST:
        low, high = nodes.weight(f"low_{index}", -layer.limit), nodes.weight(f"high_{index}", layer.limit)
        x = nodes.made("Clip", [x, low, high], f"clipped_{index}")
    return _flat(nodes, x, index) if shared else x


def _conv(nodes: Nodes, index: str, layer: Conv, x: str) -> str:
    weight, bias = nodes.weight(f"weight_{index}", layer.weight), nodes.weight(f"bias_{index}", layer.bias)
    x = _shaped(nodes, x, f"image_{index}", layer.weight.shape[1], layer.height, layer.width)
    steps = {"kernel_shape": list(layer.weight.shape[2:]), "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
    return _flat(nodes, nodes.made("Conv", [x, weight, bias], f"conv_{index}", **steps), index)


def _tree(nodes: Nodes, index: str, layer: Tree, x: str) -> str:
    """`policykd.exports.tree_products`; a single leaf as a product with nothing."""
    tree, products = layer.nodes, products_of(layer.nodes)
    value = nodes.weight(f"value_{index}", tree.value)
    asked = nodes.weight(f"feature_{index}", tree.feature, np.int64)
    ways, reached = nodes.weight(f"ways_{index}", products.ways), nodes.weight(f"reached_{index}", products.reached)
    numbers = nodes.made("Gather", [x, asked], f"asked_{index}", axis=1)
    beyond = nodes.made("Greater", [numbers, nodes.weight(f"threshold_{index}", tree.threshold)], f"beyond_{index}")
    noes = nodes.made("Cast", [beyond], f"noes_{index}", to=1)
    here = nodes.made("Greater", [nodes.made("MatMul", [noes, ways], f"way_{index}"), reached], f"here_{index}")
    return nodes.made("MatMul", [nodes.made("Cast", [here], f"leaf_{index}", to=1), value], f"tree_{index}")


def _parallel(nodes: Nodes, index: str, layer: Parallel, x: str) -> str:
    found = []
    for part, (begin, end, inner) in enumerate(layer.parts):
        share = columns(nodes, x, begin, end, f"part_{index}_{part}")
        found.append(_chain(nodes, f"{index}_{part}_", inner, share))
    return nodes.made("Concat", found, f"parts_{index}", axis=1)


def _chain(nodes: Nodes, name: str, layers: tuple[Stateless, ...], x: str) -> str:
    for index, layer in enumerate(layers):
        x = layer_nodes(nodes, f"{name}{index}", layer, x)
    return x


def _shaped(nodes: Nodes, x: str, name: str, *shape: int) -> str:
    return nodes.made("Reshape", [x, nodes.weight(f"{name}_shape", [-1, *shape], np.int64)], name)


def _flat(nodes: Nodes, x: str, index: str) -> str:
    return nodes.made("Flatten", [x], f"flat_layer_{index}", axis=1)
