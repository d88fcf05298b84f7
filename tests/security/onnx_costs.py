"""ONNX files that cost far more than their bytes say, and files whose rows depend on each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import helper

from tests.security.onnx_inputs import Expected
from tests.support.onnx_files import model_of, weight

_N = helper.make_node
Input = tuple[str, bytes, Expected]


def _linear(*nodes: Any, weights: Sequence[Any] = (), opset: int = 17) -> bytes:
    """`obs` [B, 4] to `hidden` [B, 2]; the nodes make `logits` of it."""
    first = [_N("MatMul", ["obs", "w"], ["hidden"])]
    plain = weight("w", np.random.default_rng(0).normal(size=(4, 2)))
    data: bytes = model_of([*first, *nodes], [plain, *weights], ["n", 4], ["logits"], opset).SerializeToString()
    return data


def _constant(*nodes: Any, weights: Sequence[Any], opset: int = 17) -> bytes:
    """The nodes make `much` of the weights alone; its mean is added to the logits."""
    last = [
        _N("Cast", ["much"], ["float"], to=1),
        _N("ReduceMean", ["float"], ["mean"], keepdims=0),
        _N("Add", ["hidden", "mean"], ["logits"]),
    ]
    return _linear(*nodes, *last, weights=weights, opset=opset)


def costly_inputs() -> Iterator[Input]:
    """Memory and time in the constants, in the layers, in the weights, and in working out the sizes."""
    yield from _constants()
    yield from _layers()
    yield from _vectors()


def _constants() -> Iterator[Input]:
    for side in (1000, 5000):
        sides = [weight("column", np.ones((side, 1))), weight("row", np.ones((1, side)))]
        nodes = [_N("Mul", ["column", "row"], ["k"]), _N("MatMul", ["k", "k"], ["much"])]
        yield f"constant-product-{side}", _constant(*nodes, weights=sides), "refused"
    for rows, count in ((1000, 20), (30_000, 7), (60_000, 7)):
        sides = [weight("column", np.ones((rows, 1))), weight("row", np.ones((1, 1000)))]
        nodes = [_N("Mul", ["column", "row"], ["k0"])]
        nodes += [_N("Pow", [f"k{i}", f"k{i}"], [f"k{i + 1}"]) for i in range(count)]
        nodes.append(_N("Identity", [f"k{count}"], ["much"]))
        yield f"constant-powers-{rows}", _constant(*nodes, weights=sides), "refused"
    whole = [weight("u", np.ones(20_000_000, np.uint8), np.uint8)]
    yield "constant-cast", _constant(_N("Cast", ["u"], ["much"], to=11), weights=whole), "refused"
    read = [_N("ReduceSum", ["u"], [f"s{i}"], keepdims=0) for i in range(200)]
    nodes = [*read, _N("Max", [f"s{i}" for i in range(200)], ["much"])]
    yield "constant-sums", _constant(*nodes, weights=[weight("u", np.ones((1000, 1000)))]), "refused"


def _layers() -> Iterator[Input]:
    wide = [weight("a", np.full((2, 9000), 0.1)), weight("c", np.zeros((9000, 2)))]
    for op, count in (("Pow", 230), ("Mish", 400), ("Erf", 900)):
        nodes = [_N("MatMul", ["hidden", "a"], ["h0"])]
        for i in range(count):
            nodes.append(_N(op, [f"h{i}"] * (2 if op == "Pow" else 1), [f"h{i + 1}"]))
        nodes.append(_N("MatMul", [f"h{count}", "c"], ["logits"]))
        yield f"elements-{op}", _linear(*nodes, weights=wide, opset=20), "refused"
    square = [weight("a", np.zeros((2, 1500))), weight("b", np.zeros((1500, 1500))), weight("c", np.zeros((1500, 2)))]
    nodes = [_N("MatMul", ["hidden", "a"], ["h0"])]
    nodes += [_N("MatMul", [f"h{i}", "b"], [f"h{i + 1}"]) for i in range(60)]
    nodes.append(_N("MatMul", ["h60", "c"], ["logits"]))
    yield "multiplications", _linear(*nodes, weights=square), "refused"
    for name, side, typed, expected in (
        ("weights-of-61-MB", 4000, False, "refused"),
        ("weights-at-the-limit", 2800, False, "any"),
        ("weights-at-the-limit-as-numbers", 2800, True, "any"),
    ):
        plain = [
            weight(k, np.zeros(s, np.float32)) for k, s in (("a", (2, side)), ("b", (side, side)), ("c", (side, 2)))
        ]
        for tensor in plain if typed else ():
            values = np.frombuffer(tensor.raw_data, np.float32).tolist()
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values)
        nodes = [_N("MatMul", [x, w], [y]) for x, w, y in (("hidden", "a", "g"), ("g", "b", "f"), ("f", "c", "logits"))]
        yield name, _linear(*nodes, weights=plain), expected  # type: ignore[misc]


def _vectors() -> Iterator[Input]:
    """Long vectors: ONNX's data propagation makes an object for every entry of a vector of known length."""
    for power in (24, 40):
        long = [weight("u", [1.0]), weight("to", [2**power], np.int64)]
        nodes = [_N("Expand", ["u", "to"], ["e"]), _N("Add", ["e", "e"], ["much"])]
        yield f"vector-2^{power}", _constant(*nodes, weights=long), "refused"
    chain = [_N("Concat", ["u" if i == 0 else f"c{i - 1}"] * 2, [f"c{i}"], axis=0) for i in range(40)]
    nodes = [*chain, _N("Identity", ["c39"], ["much"])]
    yield "vector-doubling", _constant(*nodes, weights=[weight("u", [1, 2], np.int64)]), "refused"
    nodes = [_N("Shape", ["obs"], ["shape"]), _N("Gather", ["shape", "zero"], ["n"]), _N("Sub", ["many", "n"], ["m"]),
             _N("Mul", ["m", "many"], ["to"]), _N("Expand", ["one", "to"], ["e"]), _N("Add", ["e", "e"], ["much"])]  # fmt: skip
    sizes = [weight("zero", [0], np.int64), weight("many", [40_000], np.int64), weight("one", [1.0])]
    yield "vector-computed", _constant(*nodes, weights=sizes), "refused"
    nodes = [_N("Sub", ["many", "n"], ["m"]), _N("Mul", ["m", "many"], ["to"]), _N("Expand", ["one", "to"], ["much"])]
    sizes[1] = weight("many", [257], np.int64)  # large for one observation, nothing for 257
    nodes = [_N("Shape", ["obs"], ["shape"]), _N("Gather", ["shape", "zero"], ["n"]), *nodes]
    nodes[3] = _N("Mul", ["m", "factor"], ["to"])
    sizes.append(weight("factor", [60_000], np.int64))
    yield "smaller-for-more-rows", _constant(*nodes, weights=sizes), "refused"


def mixing_inputs() -> Iterator[Input]:
    """Graphs whose outputs for one observation depend on the rest of its batch."""
    moments = [weight(name, np.full(2, float(name in "sv"))) for name in ("s", "b", "m", "v")]
    node = _N("BatchNormalization", ["hidden", "s", "b", "m", "v"], ["logits", "m2", "v2"], training_mode=1)
    yield "mixes-by-training-mode", _linear(node, weights=moments), "refused"
    nodes = [_N("ReduceMean", ["hidden"], ["mm"], axes=[0], keepdims=1), _N("Sub", ["hidden", "mm"], ["logits"])]
    yield "mixes-by-mean", _linear(*nodes), "refused"
    for op in ("Softmax", "LogSoftmax"):
        yield f"mixes-by-{op}", _linear(_N(op, ["hidden"], ["logits"], axis=0)), "refused"
    ints = {"start": -1, "end": -(2**31), "axis": 0, "step": -1}
    back = [weight(name, [value], np.int64) for name, value in ints.items()]
    yield "mixes-by-slice", _linear(_N("Slice", ["hidden", *ints], ["logits"]), weights=back), "refused"
    nodes = [_N("Transpose", ["hidden"], ["t"], perm=[1, 0]), _N("Reshape", ["t", "to"], ["logits"])]
    yield "mixes-by-transpose", _linear(*nodes, weights=[weight("to", [-1, 2], np.int64)]), "refused"
    nodes = [_N("ReduceSum", ["obs", "axes"], ["sum"], keepdims=1), _N("MatMul", ["sum", "w"], ["other"]),
             _N("Add", ["hidden", "other"], ["logits"])]  # fmt: skip
    yield "mixes-by-sum", _linear(*nodes, weights=[weight("axes", [0], np.int64)]), "refused"
