"""How large everything in a graph becomes, by ONNX's own shape inference, and what acting costs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from policykd.spine.types import Footprint
from policykd.teachers.onnxio.graph import DTYPES, MAX_ELEMENTS, quoted, weights_of
from policykd.teachers.onnxio.wire import UnsafeError

MAX_TOTAL = 2**29  # elements of all results together, for one run of the session
MAX_MACS = 10**9  # multiply-accumulates for one action
_FLOATS = (1, 10, 11)
_POOLS = ("MaxPool", "AveragePool")
_ACTIVATIONS = frozenset({"Tanh", "Relu", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Softplus", "Softsign", "Gelu", "Mish",
                          "HardSigmoid", "Erf", "Clip"})  # fmt: skip

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sized:
    """Shapes and element types of every name, for so many observations at once."""

    rows: int
    shapes: dict[str, Shape]
    types: dict[str, int]


@dataclass(frozen=True)
class Cost:
    """What acting by the mode costs."""

    footprint: Footprint
    layers: tuple[tuple[int, int], ...]
    activation: str


def validate(model: Any) -> None:
    """UnsafeError unless every node is as ONNX describes its operator: inputs, outputs and attributes."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        raise _invalid(error) from error


def _invalid(error: Exception) -> UnsafeError:
    return UnsafeError(f"is no valid graph ({' '.join(str(error).split())[:160]})")


def measure(model: Any, rows: int) -> Sized:
    """The sizes for an input of `rows` observations; UnsafeError where one is not known before it runs, or too large.

    The model is valid, and its input has fixed dimensions already.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError) as error:
        raise _invalid(error) from error
    shapes: dict[str, Shape] = {}
    types: dict[str, int] = {}
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    for name, weight in weights_of(graph).items():
        shapes[name], types[name] = tuple(weight.dims), weight.data_type
    sized = Sized(rows, shapes, types)
    _check(model.graph, sized)
    return sized


def _check(graph: Any, sized: Sized) -> None:
    total = 0
    for node in graph.node:
        for name in filter(None, node.output):
            shape = sized.shapes.get(name)
            if shape is None:
                raise UnsafeError(f"has a {node.op_type} whose size is not known before it runs ({quoted(name)})")
            if any(not 0 <= dim <= MAX_ELEMENTS for dim in shape) or math.prod(shape) > MAX_ELEMENTS:
                raise UnsafeError(f"has a {node.op_type} of size {shape}, expected at most {MAX_ELEMENTS} elements")
            if sized.types.get(name) not in DTYPES:
                raise UnsafeError(f"has a {node.op_type} of element type {sized.types.get(name)}, expected numbers")
            total += math.prod(shape)
        # an integer divided by zero ends a process; ONNX Runtime 1.31 checks for it, an older one need not
        if node.op_type == "Div" and sized.types[node.output[0]] not in _FLOATS:
            raise UnsafeError("divides integers, which is not supported")
    macs = sum(_work(node, sized) for node in graph.node)
    if total > MAX_TOTAL or macs > MAX_MACS * sized.rows:
        raise UnsafeError(f"is too large: {total} results, {macs // sized.rows} multiplications for one action")


def cost_of(graph: Any, sized: Sized, outputs: set[str]) -> Cost:
    """What computing `outputs` costs: float weights on the way to them, and multiplications of dense layers."""
    wanted = set(outputs)
    nodes: list[Any] = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            wanted.update(filter(None, node.input))
            nodes.insert(0, node)
    weights = weights_of(graph)
    floats = {name for name, tensor in weights.items() if tensor.data_type in _FLOATS and tensor.dims}
    sizes = [math.prod(sized.shapes[name]) for name in floats & wanted]
    dense = [node for node in nodes if node.op_type in ("Gemm", "MatMul", "Conv") and node.input[1] in weights]
    used = Counter(node.op_type.lower() for node in nodes if node.op_type in _ACTIVATIONS)
    macs = sum(_work(node, sized) for node in nodes if node.op_type not in _POOLS) // sized.rows
    common = used.most_common(1)
    return Cost(
        Footprint(sum(sizes), 0, macs), tuple(_layer(node, sized) for node in dense), common[0][0] if common else ""
    )


def _layer(node: Any, sized: Sized) -> tuple[int, int]:
    """(inputs, outputs) of a dense or convolutional layer."""
    shape = sized.shapes[node.input[1]]
    if node.op_type == "Conv":
        return shape[1], shape[0]
    if _attribute(node, "transB"):
        shape = shape[::-1]
    return shape[-2] if len(shape) > 1 else shape[0], shape[-1]


def _work(node: Any, sized: Sized) -> int:
    """Multiply-accumulates of a node, or looks at an element of a pool."""
    out = math.prod(sized.shapes[node.output[0]])
    if node.op_type == "Gemm":
        first = sized.shapes[node.input[0]]
        return out * first[0 if _attribute(node, "transA") else 1]
    if node.op_type == "MatMul":
        return out * sized.shapes[node.input[0]][-1]
    if node.op_type == "Conv":
        return out * math.prod(sized.shapes[node.input[1]][1:])
    if node.op_type in _POOLS:
        kernel = next((attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"), ())
        return out * math.prod(kernel)
    return 0


def _attribute(node: Any, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)
