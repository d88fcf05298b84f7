"""Sizes that a graph computes (Shape, Gather, Concat ... before a Reshape), worked out without running it.

ONNX's own data propagation does this too, but it makes an object for every entry of a vector, also of one of 2^40.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_MAX_VALUES = 64  # entries of what can be a size; a tensor has at most 8 dimensions
_MAX_VALUE = 2**31
_INTEGERS = {6: np.int32, 7: np.int64}
_UNKNOWN = (ValueError, IndexError, KeyError, TypeError)

Values = dict[str, np.ndarray]


def attribute_of(node: Any, name: str) -> Any:
    """The AttributeProto of that name, or None."""
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def small_integers(weights: Mapping[str, Any]) -> Values:
    """Name -> values, int64, of the tensors that can be sizes."""
    from onnx import numpy_helper

    found = {
        name: np.asarray(numpy_helper.to_array(tensor), np.int64)
        for name, tensor in weights.items()
        if tensor.data_type in _INTEGERS and np.prod(tensor.dims, dtype=np.float64) <= _MAX_VALUES
    }
    return {name: values for name, values in found.items() if _is_small(values)}


def fold(graph: Any, known: Values, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, int]) -> bool:
    """Replaces every node whose small whole numbers are known by a tensor of them; whether there was one."""
    from onnx import numpy_helper

    done = []
    for index, node in enumerate(graph.node):
        kind = types.get(node.output[0])
        if len(node.output) != 1 or kind not in _INTEGERS:
            continue
        try:
            values = np.asarray(_result(node, known, shapes), np.int64)
        except _UNKNOWN:
            continue
        if _is_small(values):
            known[node.output[0]] = values
            graph.initializer.append(numpy_helper.from_array(values.astype(_INTEGERS[kind]), node.output[0]))
            done.append(index)
    for index in reversed(done):
        del graph.node[index]
    return bool(done)


def _is_small(values: np.ndarray) -> bool:
    return values.size <= _MAX_VALUES and values.ndim <= 8 and bool(np.all(np.abs(values) < _MAX_VALUE))


def _result(node: Any, known: Values, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """One of `_UNKNOWN` where it is not known, or the node is none of these."""
    if node.op_type == "Shape":
        return _shape(node, shapes)
    if node.op_type == "Constant":
        single, several = attribute_of(node, "value_int"), attribute_of(node, "value_ints")
        if single is None and several is None:
            raise ValueError
        return single.i if single is not None else list(several.ints)[: _MAX_VALUES + 1]
    return _OPERATIONS[node.op_type](node, [known[name] for name in node.input])


def _shape(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    start, end = attribute_of(node, "start"), attribute_of(node, "end")
    return shapes[node.input[0]][0 if start is None else start.i : None if end is None else end.i]


def _gather(node: Any, inputs: list[np.ndarray]) -> np.ndarray:
    axis = attribute_of(node, "axis")
    return np.take(inputs[0], inputs[1], 0 if axis is None else axis.i)  # raises for an index outside


def _concat(node: Any, inputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(inputs, attribute_of(node, "axis").i)


def _slice(node: Any, inputs: list[np.ndarray]) -> np.ndarray:
    """Of a vector, by steps of 1, as Python slices it."""
    data, *rest = inputs
    if not rest:
        rest = [np.array(attribute_of(node, name).ints) for name in ("starts", "ends")]
        axes = attribute_of(node, "axes")
        rest += [np.array(axes.ints)] if axes is not None else []
    start, end, *more = (part.tolist() for part in rest)
    plain: tuple[list[list[int]], ...] = ([[0]], [[-1]], [[0], [1]], [[-1], [1]], [])
    if data.ndim != 1 or len(start) != 1 or len(end) != 1 or more not in plain:
        raise ValueError
    return data[start[0] : end[0]]


def _axes(node: Any, inputs: list[np.ndarray]) -> tuple[int, ...] | None:
    if len(inputs) > 1:
        return tuple(inputs[1].ravel().tolist())
    axes = attribute_of(node, "axes")
    return None if axes is None else tuple(axes.ints)


def _unsqueeze(node: Any, inputs: list[np.ndarray]) -> np.ndarray:
    axes = _axes(node, inputs)
    if axes is None:
        raise ValueError
    return np.expand_dims(inputs[0], axes)


def _reshape(node: Any, inputs: list[np.ndarray]) -> np.ndarray:
    if 0 in inputs[1]:  # stands for the dimension that was there
        raise ValueError
    return inputs[0].reshape(inputs[1].tolist())


_OPERATIONS: dict[str, Callable[[Any, list[np.ndarray]], np.ndarray]] = {
    "Identity": lambda _, inputs: inputs[0],
    "Cast": lambda _, inputs: inputs[0],  # from whole numbers to whole numbers: others are not known
    "Add": lambda _, inputs: inputs[0] + inputs[1],
    "Sub": lambda _, inputs: inputs[0] - inputs[1],
    "Mul": lambda _, inputs: inputs[0] * inputs[1],  # of two below 2^31
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": lambda node, inputs: np.squeeze(inputs[0], _axes(node, inputs)),
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
}
