"""Whether a parsed ONNX graph is one of plain arithmetic: known operators, finite weights, every name made once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from policykd.teachers.onnxio.wire import UnsafeError

MAX_NODES = 1000
MAX_ELEMENTS = 2**25  # of one tensor
MAX_INT = 4096  # of an attribute: kernels, pads, axes; shape inference takes memory by some of them
MAX_WIDE = 2**31 - 1  # of an attribute that says "to the end" by a large number
MAX_INTS = 256  # in one attribute
MIN_OPSET = 7

_OPERATORS = """
    Add ArgMax AveragePool BatchNormalization Cast Clip Concat Constant Conv Div Elu Equal Erf Exp Expand Flatten Gather
    Gelu Gemm GlobalAveragePool Greater HardSigmoid Identity LayerNormalization LeakyRelu Log LogSoftmax MatMul Max
    MaxPool Min Mish Mul Neg Pow ReduceMean ReduceSum Relu Reshape Selu Shape Sigmoid Slice Softmax Softplus Softsign
    Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_OPERATORS.split())
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_WIDE = frozenset({"starts", "ends", "value_int", "value_ints"})
_PLAIN_ATTRIBUTES = frozenset({1, 2, 3, 4, 6, 7})  # FLOAT, INT, STRING, TENSOR, FLOATS, INTS

DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
}
"""The element types of onnx.proto that a policy may use."""


def check_graph(model: Any) -> None:
    """UnsafeError unless the model is plain arithmetic; nothing is run. `model` is an onnx.ModelProto."""
    _check_versions(model)
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise UnsafeError(f"has {len(graph.node)} nodes, expected at most {MAX_NODES}")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        _check_node(node)
    _check_names(graph)


def weights_of(graph: Any) -> dict[str, Any]:
    """Name -> TensorProto of every constant tensor: initialisers and Constant nodes."""
    constants = {node.output[0]: node.attribute[0].t for node in graph.node if _is_tensor_constant(node)}
    return {tensor.name: tensor for tensor in graph.initializer} | constants


def quoted(text: str) -> str:
    """A name out of the file, on one line."""
    return repr(text[:60])


def _is_tensor_constant(node: Any) -> bool:
    return node.op_type == "Constant" and bool(node.attribute) and node.attribute[0].name == "value"


def _check_versions(model: Any) -> None:
    import onnx

    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise UnsafeError(f"has format version {model.ir_version}, expected 3 to {onnx.IR_VERSION}")
    domains = [entry.domain for entry in model.opset_import]
    other = [domain for domain in domains if domain not in ("", "ai.onnx")]
    if other:
        raise UnsafeError(f"uses operators of {quoted(other[0])}, expected those of ONNX alone")
    if len(domains) != 1:
        raise UnsafeError(f"names {len(domains)} operator sets, expected one")
    version, newest = model.opset_import[0].version, onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= version <= newest:
        raise UnsafeError(f"uses operator set {version}, expected {MIN_OPSET} to {newest}")


def _check_node(node: Any) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise UnsafeError(f"uses an operator of {quoted(node.domain)}, expected those of ONNX alone")
    if node.op_type in _RECURRENT:
        raise UnsafeError(f"uses {node.op_type}: recurrent policies are not supported yet")
    if node.op_type not in OPERATORS:
        raise UnsafeError(f"uses the operator {quoted(node.op_type)}, which is not among those that policies need")
    if node.overload:
        raise UnsafeError(f"has a {node.op_type} of a function of its own, which is not supported")
    for attribute in node.attribute:
        _check_attribute(node, attribute)


def _check_attribute(node: Any, attribute: Any) -> None:
    name = f"{node.op_type}.{quoted(attribute.name)}"
    if attribute.type not in _PLAIN_ATTRIBUTES or attribute.tensors:
        raise UnsafeError(f"has {name} of a kind that policies do not need")
    limit = MAX_WIDE if attribute.name in _WIDE else MAX_INT
    ints = [attribute.i, *attribute.ints]
    if len(ints) > MAX_INTS:
        raise UnsafeError(f"has {name} of {len(ints) - 1} numbers, expected at most {MAX_INTS}")
    if any(abs(value) > limit and not (limit == MAX_WIDE and value >= 2**62) for value in ints):
        raise UnsafeError(f"has {name} = {max(ints, key=abs)}, expected at most {limit}")
    if attribute.name == "num_outputs" and attribute.i != len(node.output):
        raise UnsafeError(f"has {name} = {attribute.i}, expected {len(node.output)}, the outputs that it names")
    if not all(map(math.isfinite, [attribute.f, *attribute.floats])):
        raise UnsafeError(f"has {name} that is not finite")
    if attribute.name == "training_mode" and attribute.i:
        raise UnsafeError(f"has a {node.op_type} in training mode, which mixes the observations of a batch")
    if attribute.type == 4:
        if node.op_type != "Constant" or attribute.name != "value":
            raise UnsafeError(f"has {name} of a kind that policies do not need")
        _check_tensor(attribute.t)


def _check_tensor(tensor: Any) -> None:
    """Its data has exactly the size that its shape says, and is finite."""
    name = f"the tensor {quoted(tensor.name)}"
    if tensor.data_location:
        raise UnsafeError(f"has {name} in another file (external data), which is not supported")
    if tensor.data_type not in DTYPES:
        raise UnsafeError(f"has {name} of element type {tensor.data_type}, expected floats, integers or booleans")
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims) or len(dims) > 8 or math.prod(dims) > MAX_ELEMENTS:
        raise UnsafeError(f"has {name} of shape {str(dims)[:80]}, expected at most {MAX_ELEMENTS} elements")
    dtype = DTYPES[tensor.data_type]
    typed = [len(getattr(tensor, field)) for field in ("float_data", "int32_data", "int64_data", "double_data",
                                                      "uint64_data")]  # fmt: skip
    raw = len(tensor.raw_data)
    found = raw // dtype.itemsize + sum(typed)
    if found != math.prod(dims) or raw % dtype.itemsize or (raw and any(typed)) or sum(map(bool, typed)) > 1:
        raise UnsafeError(f"has {name} with {found} numbers for the shape {dims}")
    if dtype.kind == "f" and not _finite(tensor, dtype):
        raise UnsafeError(f"has {name} with a NaN or infinity")


def _finite(tensor: Any, dtype: np.dtype[Any]) -> bool:
    if tensor.raw_data:
        values = np.frombuffer(tensor.raw_data, dtype.newbyteorder("<"))
    elif dtype == np.float16:  # its bits stand in int32_data
        bits = np.array(tensor.int32_data, np.int64)
        if np.any((bits < 0) | (bits > 0xFFFF)):
            return False
        values = bits.astype(np.uint16).view(np.float16)
    else:
        values = np.fromiter(tensor.float_data or tensor.double_data, np.float64)
    return bool(np.isfinite(values).all())


def _check_names(graph: Any) -> None:
    """Every name is made once, before it is used: such a graph has no cycle."""
    made: set[str] = set()
    weights = [tensor.name for tensor in graph.initializer]
    inputs = [value.name for value in graph.input if value.name not in set(weights)]
    for name in _all_made(weights, inputs):
        if not name or name in made:
            raise UnsafeError(f"makes {quoted(name)} twice, or leaves its name out")
        made.add(name)
    for node in graph.node:
        for name in node.input:
            if name and name not in made:
                raise UnsafeError(f"uses {quoted(name)} before anything makes it (a cycle, or a missing weight)")
        outputs = [name for name in node.output if name]
        if not outputs or len(set(outputs)) < len(outputs) or not made.isdisjoint(outputs):
            raise UnsafeError(f"has a {node.op_type} whose outputs {str(list(node.output))[:80]} are made twice")
        made.update(outputs)
    missing = [value.name for value in graph.output if value.name not in made]
    if missing:
        raise UnsafeError(f"has an output {quoted(missing[0])} that nothing makes")


def _all_made(weights: list[str], inputs: list[str]) -> Iterator[str]:
    yield from weights
    yield from inputs
