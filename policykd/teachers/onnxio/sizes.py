"""How large everything in a graph becomes, by ONNX's own shape inference, and what acting costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policykd.spine.types import Footprint
from policykd.teachers.onnxio.fold import attribute_of, fold, small_integers
from policykd.teachers.onnxio.graph import DTYPES, MAX_ELEMENTS, quoted, weights_of
from policykd.teachers.onnxio.wire import UnsafeError

MAX_MACS = 10**8  # multiply-accumulates for one action, and for everything that depends on no observation
MAX_TOUCHED = 2 * 10**6  # numbers that the other nodes read or write for one action
MAX_CONSTANT = 2**23  # numbers that nodes read or write which depend on no observation: opening the file computes them
MAX_TOTAL = 2**26  # elements of all results together, for one run of the session; what needs more is run in parts
_LARGE = 2**8  # entries of a tensor that is no size or index
_ROUNDS = 8  # of sizes that follow from sizes that were computed
_MAX_DIMS = 8
_FLOATS = (1, 10, 11)
_POOLS = ("MaxPool", "AveragePool")
_DENSE = ("Gemm", "MatMul", "Conv")
_PRODUCTS = (*_POOLS, *_DENSE)
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


def measure(model: Any, name: str, shape: Shape, rows: Sequence[int]) -> Sized:
    """The sizes for the most observations of `rows` (1, and more) that one run can take; UnsafeError where a size is
    not known before it runs, or too large. The model is valid; `name` is its input for observations of this shape.

    Every number of observations is measured, since a graph can compute sizes, also such as shrink with more.
    """
    light, weights = _without_weights(model), weights_of(model.graph)
    (value,) = (value for value in light.graph.input if value.name == name)
    best: Sized | None = None
    for count in rows:
        set_shape(value, (count, *shape))
        sized = _inferred(light, weights, count)
        total = _check(model.graph, sized, name)
        if best is None or total <= MAX_TOTAL:
            best = sized
        else:
            break
    assert best is not None
    return best


def set_shape(value: Any, dims: Sequence[int | None]) -> None:
    """Gives an input of a graph these dimensions; None is free."""
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for dim in dims:
        entry = shape.dim.add()
        if dim is not None:
            entry.dim_value = dim


def _without_weights(model: Any) -> Any:
    """A copy whose large tensors are inputs: sizes follow from their shapes, and inference copies what they hold."""
    from onnx import ModelProto, helper

    light = ModelProto()
    light.CopyFrom(model)
    graph = light.graph
    large = {name: t for name, t in weights_of(model.graph).items() if math.prod(t.dims) > _LARGE}
    names = [tensor.name for tensor in graph.initializer], [node.output[0] for node in graph.node]
    for part, named in zip((graph.initializer, graph.node), names, strict=True):
        for index in reversed(range(len(named))):
            if named[index] in large:
                del part[index]
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in large:
            del graph.input[index]
    graph.input.extend(helper.make_tensor_value_info(name, t.data_type, t.dims) for name, t in large.items())
    return light


def _inferred(light: Any, weights: Mapping[str, Any], rows: int) -> Sized:
    """Shapes by ONNX's inference, in rounds: it gives the sizes that the next round's whole numbers are made of."""
    model = type(light)()
    model.CopyFrom(light)
    known = small_integers(weights)
    shapes: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for _ in range(_ROUNDS):
        for value in _values(model):
            tensor = value.type.tensor_type
            types[value.name] = tensor.elem_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        for name, weight in weights.items():
            shapes[name], types[name] = tuple(weight.dims), weight.data_type
        if not fold(model.graph, known, shapes, types):
            break
    return Sized(rows, shapes, types)


def _values(model: Any) -> Sequence[Any]:
    """What ONNX's inference says of inputs, results and outputs."""
    import onnx

    try:  # without its data_prop, which takes memory by what a vector's size says
        graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError) as error:
        raise _invalid(error) from error
    return (*graph.input, *graph.value_info, *graph.output)


def _check(graph: Any, sized: Sized, name: str) -> int:
    """The entries of all results together, once nothing is too large and the work is bounded."""
    _check_results(graph, sized)
    acting = {name}  # what depends on the observation
    macs, touched = Counter[bool](), Counter[bool]()
    for node in graph.node:
        depends = not acting.isdisjoint(node.input)
        if depends:
            acting.update(node.output)
        macs[depends] += _work(node, sized)
        touched[depends] += _touched(node, sized)
    if macs[False] > MAX_MACS or touched[False] > MAX_CONSTANT:
        raise UnsafeError(
            f"is too large: {macs[False]} multiplications and {touched[False]} numbers that depend on no observation, "
            f"expected at most {MAX_MACS} and {MAX_CONSTANT}"
        )
    if macs[True] > MAX_MACS * sized.rows or touched[True] > MAX_TOUCHED * sized.rows:
        raise UnsafeError(
            f"is too large: {macs[True] // sized.rows} multiplications and {touched[True] // sized.rows} other numbers "
            f"for one action, expected at most {MAX_MACS} and {MAX_TOUCHED}"
        )
    return sum(math.prod(sized.shapes[made]) for node in graph.node for made in filter(None, node.output))


def _check_results(graph: Any, sized: Sized) -> None:
    most = MAX_ELEMENTS * sized.rows
    for node in graph.node:
        for name in filter(None, node.output):
            shape = sized.shapes.get(name)
            if shape is None:
                raise UnsafeError(f"has a {node.op_type} whose size is not known before it runs ({quoted(name)})")
            if len(shape) > _MAX_DIMS:
                raise UnsafeError(f"has a {node.op_type} of {len(shape)} dimensions, expected at most {_MAX_DIMS}")
            if min(shape, default=1) < 0 or max((*shape, math.prod(shape))) > most:
                raise UnsafeError(f"has a {node.op_type} of size {shape}, expected at most {most} elements")
            if sized.types.get(name) not in DTYPES:
                raise UnsafeError(f"has a {node.op_type} of element type {sized.types.get(name)}, expected numbers")
        # an integer divided by zero ends a process; ONNX Runtime 1.31 checks for it, an older one need not
        if node.op_type == "Div" and sized.types[node.output[0]] not in _FLOATS:
            raise UnsafeError("divides integers, which is not supported")


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
    dense = [node for node in nodes if node.op_type in _DENSE and node.input[1] in weights]
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
    if _flag(node, "transB"):
        shape = shape[::-1]
    return shape[-2] if len(shape) > 1 else shape[0], shape[-1]


def _work(node: Any, sized: Sized) -> int:
    """Multiply-accumulates of a node, or looks at an element of a pool."""
    out = math.prod(sized.shapes[node.output[0]])
    if node.op_type == "Gemm":
        first = sized.shapes[node.input[0]]
        return out * first[0 if _flag(node, "transA") else 1]
    if node.op_type == "MatMul":
        return out * sized.shapes[node.input[0]][-1]
    if node.op_type == "Conv":
        return out * math.prod(sized.shapes[node.input[1]][1:])
    if node.op_type in _POOLS:
        kernel = attribute_of(node, "kernel_shape")
        return out * math.prod(kernel.ints if kernel is not None else ())
    return 0


def _touched(node: Any, sized: Sized) -> int:
    """Numbers that a node reads or writes, whichever are more; multiplications and pools are counted by `_work`."""
    if node.op_type in ("Constant", "Shape"):
        return 0
    written, read = (
        sum(math.prod(sized.shapes.get(name, ())) for name in filter(None, names))
        for names in (node.output, node.input)
    )
    return written if node.op_type in _PRODUCTS or node.op_type == "Gather" else max(written, read)


def _flag(node: Any, name: str) -> int:
    found = attribute_of(node, name)
    return 0 if found is None else int(found.i)
