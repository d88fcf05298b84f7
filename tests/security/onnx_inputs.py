"""ONNX files made to attack a reader. All go with the YAML `CARD`, as NAME.onnx and NAME.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support.onnx_files import model_of, weight

Expected = Literal["opens", "refused", "any"]  # "any": refused, or opened and harmless

CARD = {"env": "CartPole-v1", "action_space": {"type": "Discrete", "n": 2}, "outputs": {"logits": "logits"}}


def onnx_inputs(seed: int = 0) -> Iterator[tuple[str, bytes, Expected]]:
    """(name, bytes, what must happen): the same files for the same seed. The first one is good."""
    rng = np.random.default_rng(seed)
    good = _good()
    data = good.SerializeToString()
    yield "good", data, "opens"
    for cut in sorted({0, 1, 2, *rng.integers(3, len(data) - 1, 37).tolist()}):
        yield f"truncated-{cut}", data[:cut], "refused" if cut < 3 else "any"
    for index in range(80):
        flipped = bytearray(data)
        for at in rng.integers(0, len(data), 1 + index % 4):
            flipped[at] ^= 1 << int(rng.integers(8))
        yield f"flipped-{index}", bytes(flipped), "any"
    for index in range(10):
        yield f"noise-{index}", rng.bytes(int(rng.integers(1, 4096))), "refused"
    for name, mutate in _MUTATIONS.items():
        model = _good()
        mutate(model)
        yield name, model.SerializeToString(), "refused"
    for op in _FOREIGN:
        yield f"operator-{op}", _with_node(helper.make_node(op, ["hidden"], ["logits"])), "refused"
    yield from _bombs()
    yield from _bad_attributes()
    yield from _bytes_only(data)


def _good() -> Any:
    rng = np.random.default_rng(1)
    weights = [weight("w", rng.normal(size=(4, 8))), weight("b", rng.normal(size=8)), weight("v", np.ones((8, 2)))]
    nodes = [
        helper.make_node("Gemm", ["obs", "w", "b"], ["before"]),
        helper.make_node("Tanh", ["before"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "v"], ["logits"]),
    ]
    return model_of(nodes, weights, ["batch", 4], ["logits"])


def _with_node(*last: Any, weights: Sequence[Any] = (), shape: Sequence[Any] = ("batch", 4), opset: int = 17) -> bytes:
    """The good model whose last nodes are these, from `hidden` [B, 8]."""
    good = _good()
    nodes = [*good.graph.node[:2], *last]
    data: bytes = model_of(nodes, [*good.graph.initializer, *weights], shape, ["logits"], opset).SerializeToString()
    return data


def _external(path: str, *, location: bool = True) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        if location:
            tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", path), ("offset", "0"), ("length", "128")):
            tensor.external_data.add(key=key, value=value)

    return mutate


def _marked_external(model: Any) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _constant_elsewhere(model: Any) -> None:
    _external("../secret.bin")(model)
    tensor = model.graph.initializer[0]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    del model.graph.initializer[0]


def _value(number: float) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        values = np.zeros((4, 8), np.float32)
        values[1, 1] = number
        model.graph.initializer[0].raw_data = values.tobytes()

    return mutate


def _typed_nan(model: Any) -> None:
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([float("nan")] * 8)


def _dims(*dims: int) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        model.graph.initializer[0].dims[:] = dims

    return mutate


def _input_dims(*dims: Any) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        value = helper.make_tensor_value_info("obs", TensorProto.FLOAT, list(dims))
        model.graph.input[0].CopyFrom(value)

    return mutate


def _edit(what: Callable[[Any], Any]) -> Callable[[Any], None]:
    def mutate(model: Any) -> None:
        what(model)

    return mutate


def _cycle(model: Any) -> None:
    model.graph.node[0].input[0] = "hidden"


def _self_cycle(model: Any) -> None:
    model.graph.node[1].input[0] = "hidden"


def _function(model: Any) -> None:
    made = helper.make_node("Identity", ["x"], ["y"])
    function = helper.make_function("own", "F", ["x"], ["y"], [made], [helper.make_opsetid("", 17)])
    model.functions.append(function)


def _branch() -> Any:
    made = helper.make_node("Constant", [], ["out"], value=weight("c", np.zeros((1, 2))))
    return helper.make_graph([made], "g", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])])


def _if(model: Any) -> None:
    model.graph.initializer.append(weight("yes", True, np.bool_))
    model.graph.node[2].CopyFrom(
        helper.make_node("If", ["yes"], ["logits"], then_branch=_branch(), else_branch=_branch())
    )


def _hidden_graph(model: Any) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("body", _branch()))


def _deep(model: Any, levels: int = 25) -> None:
    graph = _branch()
    for _ in range(levels):
        node = helper.make_node("If", ["yes"], ["out"], then_branch=graph, else_branch=_branch())
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])])
    model.graph.node[1].attribute.append(helper.make_attribute("body", graph))


def _sparse(model: Any) -> None:
    values = weight("sparse", np.ones(1))
    indices = weight("at", np.zeros(1), np.int64)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9]))


def _segment(model: Any) -> None:
    model.graph.initializer[0].segment.begin = 0


def _text_weights(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_type = TensorProto.STRING
    tensor.string_data.extend([b"x"] * 32)


def _second_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 8]))


def _input_type(kind: int) -> Callable[[Any], None]:
    return lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", kind)


def _sequence_input(model: Any) -> None:
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


_MUTATIONS: dict[str, Callable[[Any], None]] = {
    "external-passwd": _external("/etc/passwd"),
    "external-parent": _external("../../secret.bin"),
    "external-beside": _external("weights.bin"),
    "external-proc": _external("/proc/self/environ"),
    "external-unmarked": _external("/etc/passwd", location=False),
    "external-marked-only": _marked_external,
    "external-constant": _constant_elsewhere,
    "weight-nan": _value(float("nan")),
    "weight-inf": _value(float("inf")),
    "weight-minus-inf": _value(float("-inf")),
    "weight-nan-typed": _typed_nan,
    "dims-huge": _dims(2**40, 2**40),
    "dims-overflow": _dims(2**32, 2**32),
    "dims-negative": _dims(-4, -8),
    "dims-too-many": _dims(*[1] * 40),
    "dims-other": _dims(4, 9),
    "dims-zero": _dims(0, 8),
    "input-huge": _input_dims("batch", 2**50),
    "input-wide": _input_dims("batch", 10**6),
    "input-batch-7": _input_dims(7, 4),
    "input-five": _input_dims("batch", 5),
    "input-unknown": _input_dims("batch", "n"),
    "input-scalar": _input_dims(),
    "input-negative": _input_dims("batch", -4),
    "input-deep": _input_dims("batch", *[1] * 30),
    "input-text": _input_type(TensorProto.STRING),
    "input-complex": _input_type(TensorProto.COMPLEX128),
    "input-unknown-type": _input_type(999),
    "input-sequence": _sequence_input,
    "input-second": _second_input,
    "input-none": _edit(lambda m: m.graph.ClearField("input")),
    "input-twice": _edit(lambda m: m.graph.input.append(m.graph.input[0])),
    "output-none": _edit(lambda m: m.graph.ClearField("output")),
    "output-other": _edit(lambda m: setattr(m.graph.output[0], "name", "hidden")),
    "output-unmade": _edit(lambda m: setattr(m.graph.output[0], "name", "nothing")),
    "no-graph": _edit(lambda m: m.ClearField("graph")),
    "no-nodes": _edit(lambda m: m.graph.ClearField("node")),
    "no-opset": _edit(lambda m: m.ClearField("opset_import")),
    "opset-old": _edit(lambda m: setattr(m.opset_import[0], "version", 1)),
    "opset-future": _edit(lambda m: setattr(m.opset_import[0], "version", 10**6)),
    "opset-negative": _edit(lambda m: setattr(m.opset_import[0], "version", -1)),
    "opset-twice": _edit(lambda m: m.opset_import.append(m.opset_import[0])),
    "ir-future": _edit(lambda m: setattr(m, "ir_version", 10**9)),
    "ir-none": _edit(lambda m: m.ClearField("ir_version")),
    "domain-custom": _edit(lambda m: setattr(m.graph.node[1], "domain", "com.microsoft")),
    "domain-python": _edit(lambda m: setattr(m.graph.node[1], "domain", "ai.onnx.contrib")),
    "domain-imported": _edit(lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 1))),
    "domain-training": _edit(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))),
    "overload": _edit(lambda m: setattr(m.graph.node[1], "overload", "x")),
    "function": _function,
    "training-info": _edit(lambda m: m.training_info.add()),
    "if": _if,
    "graph-in-attribute": _hidden_graph,
    "graph-deep": _deep,
    "sparse": _sparse,
    "segment": _segment,
    "weights-as-text": _text_weights,
    "weight-complex": _edit(lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.COMPLEX64)),
    "weight-type-unknown": _edit(lambda m: setattr(m.graph.initializer[0], "data_type", 77)),
    "weight-short": _edit(lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0" * 8)),
    "weight-long": _edit(lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0" * 4096)),
    "weight-odd": _edit(lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0" * 127)),
    "weight-both": _edit(lambda m: m.graph.initializer[0].float_data.append(1.0)),
    "weight-twice": _edit(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    "weight-nameless": _edit(lambda m: m.graph.initializer[0].ClearField("name")),
    "weight-named-as-input": _edit(lambda m: setattr(m.graph.initializer[0], "name", "obs")),
    "weight-missing": _edit(lambda m: m.graph.initializer.pop(0)),
    "cycle": _cycle,
    "cycle-of-one": _self_cycle,
    "node-order": _edit(lambda m: m.graph.node.insert(0, m.graph.node.pop())),
    "node-twice": _edit(lambda m: m.graph.node.append(m.graph.node[1])),
    "node-without-output": _edit(lambda m: m.graph.node[2].ClearField("output")),
    "node-without-input": _edit(lambda m: m.graph.node[1].ClearField("input")),
    "node-with-more-inputs": _edit(lambda m: m.graph.node[1].input.extend(["w"] * 9)),
    "node-with-more-outputs": _edit(lambda m: m.graph.node[1].output.extend(["p", "q"])),
    "node-unnamed-operator": _edit(lambda m: m.graph.node[1].ClearField("op_type")),
    "node-makes-a-weight": _edit(lambda m: m.graph.node[1].output.__setitem__(0, "w")),
    "attribute-unknown": _edit(lambda m: m.graph.node[1].attribute.append(helper.make_attribute("evil", 1))),
    "attribute-mistyped": _edit(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("transB", "yes"))),
    "attribute-nan": _edit(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("alpha", float("nan")))),
    "attribute-tensor": _edit(
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("alpha", weight("x", np.ones(4))))
    ),
    "attribute-reference": _edit(
        lambda m: m.graph.node[0].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="x")
    ),
}

_FOREIGN = ("Loop", "Scan", "If", "ConstantOfShape", "Tile", "Resize", "RandomNormal", "Multinomial", "LSTM",
            "GRU", "RNN", "NonZero", "Unique", "SequenceEmpty", "StringSplit", "ImageDecoder", "Range", "Pad", "OneHot",
            "PyOp", "Einsum", "ScatterND", "Mod", "Optional", "x" * 5000)  # fmt: skip


def _bombs() -> Iterator[tuple[str, bytes, Expected]]:
    """Small files that would become large, slow, or end the process."""
    for name, count in (("doubling", 30), ("doubling-past-64-bits", 70)):
        nodes, now = [], "hidden"
        for index in range(count):
            nodes.append(helper.make_node("Concat", [now, now], [f"c{index}"], axis=1))
            now = f"c{index}"
        nodes.append(helper.make_node("ReduceSum", [now], ["s"]))
        nodes.append(helper.make_node("Mul", ["s", "s"], ["logits"]))
        yield name, _with_node(*nodes), "refused"
    column, row = weight("column", np.ones((100_000, 1))), weight("row", np.ones((1, 100_000)))
    for op in ("Add", "MatMul", "Pow", "Where"):
        inputs = ["column", "row"]
        extra = [column, row]
        if op == "Where":
            inputs, extra = ["yes", *inputs], [*extra, weight("yes", [[True]], np.bool_)]
        nodes = [
            helper.make_node(op, inputs, ["wide"]),
            helper.make_node("ReduceSum", ["wide"], ["sum"]),
            helper.make_node("Mul", ["sum", "hidden"], ["logits"]),
        ]
        yield f"wide-{op}", _with_node(*nodes, weights=extra), "refused"
    for name, shape in (
        ("huge", [2**40, 8]),
        ("wide", [4096, 2**26]),
        ("minus", [-1, 8]),
        ("none", [0, 8]),
        ("other", [3, 5]),
    ):
        nodes = [
            helper.make_node("Expand", ["hidden", "to"], ["large"]),
            helper.make_node("ReduceSum", ["large"], ["sum"]),
            helper.make_node("MatMul", ["hidden", "v"], ["before"]),
            helper.make_node("Mul", ["before", "sum"], ["logits"]),
        ]
        yield f"expand-{name}", _with_node(*nodes, weights=[weight("to", shape, np.int64)]), "refused"
    nodes = [helper.make_node("Gather", ["hidden", "at"], ["logits"], axis=1)]
    yield "gather-outside", _with_node(*nodes, weights=[weight("at", [0, 10**6], np.int64)]), "refused"
    ints = [weight("zero", [[0, 0]], np.int64), weight("one", [[1, 1]], np.int64)]
    nodes = [
        helper.make_node("Div", ["one", "zero"], ["q"]),
        helper.make_node("Cast", ["q"], ["f"], to=1),
        helper.make_node("Mul", ["f", "f"], ["logits"]),
    ]
    yield "divide-by-zero", _with_node(*nodes, weights=ints), "refused"
    for name, shape in (("reshape-fixed", [1, 2048]), ("reshape-minus", [-5, 8]), ("reshape-huge", [2**62, 4])):
        nodes = [helper.make_node("Reshape", ["hidden", "to"], ["logits"])]
        yield name, _with_node(*nodes, weights=[weight("to", shape, np.int64)]), "refused"
    for key, value in (("pads", [2**30] * 4), ("kernel_shape", [2**31, 2**31]), ("strides", [0, 0]),
                       ("dilations", [-1, 1]), ("kernel_shape", [0, 0])):  # fmt: skip
        arguments = {"kernel_shape": [1, 1], key: value}
        nodes = [
            helper.make_node("Unsqueeze", ["hidden", "axes"], ["image"]),
            helper.make_node("MaxPool", ["image"], ["pooled"], **arguments),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "v"], ["logits"]),
        ]
        extra = [weight("axes", [1, 2], np.int64)]
        yield f"pool-{key}-{value[0]}", _with_node(*nodes, weights=extra), "refused"
    nodes = [helper.make_node("Tanh", ["hidden"], ["t0"])]
    nodes += [helper.make_node("Tanh", [f"t{i}"], [f"t{i + 1}"]) for i in range(3000)]
    yield "many-nodes", _with_node(*nodes, helper.make_node("MatMul", ["t3000", "v"], ["logits"])), "refused"
    nodes = [
        helper.make_node("Div", ["hidden", "nothing"], ["huge"]),
        helper.make_node("MatMul", ["huge", "v"], ["logits"]),
    ]
    yield "gives-nan", _with_node(*nodes, weights=[weight("nothing", np.zeros(8))]), "refused"
    yield (
        "split-many",
        _with_node(
            helper.make_node("Split", ["hidden", "parts"], [f"s{i}" for i in range(9)], axis=1),
            helper.make_node("Concat", ["s0", "s1"], ["logits"], axis=1),
            weights=[weight("parts", [1] * 9, np.int64)],
        ),
        "refused",
    )
    yield (
        "cast-to-text",
        _with_node(
            helper.make_node("Cast", ["hidden"], ["text"], to=8), helper.make_node("Cast", ["text"], ["logits"], to=1)
        ),
        "refused",
    )


def _bad_attributes() -> Iterator[tuple[str, bytes, Expected]]:
    """Known operators with numbers that a careless kernel would divide or index by."""
    image = helper.make_node("Unsqueeze", ["hidden", "axes"], ["image"])
    flat = [helper.make_node("Flatten", ["out"], ["flat"]), helper.make_node("MatMul", ["flat", "v"], ["logits"])]
    axes, kernel = weight("axes", [1, 2], np.int64), weight("k", np.ones((1, 1, 1, 1)))
    for key, value in (("group", 0), ("group", -1), ("group", 7), ("strides", [0, 0]), ("dilations", [0, 0]),
                       ("kernel_shape", [3, 3]), ("pads", [-1, -1, -1, -1]), ("pads", [4096] * 4)):  # fmt: skip
        conv = helper.make_node("Conv", ["image", "k"], ["out"], **{key: value})
        yield f"conv-{key}-{value}", _with_node(image, conv, *flat, weights=[axes, kernel]), "refused"
    one = [
        ("Flatten", {"axis": 9}, [], 17),
        ("Transpose", {"perm": [0, 0]}, [], 17),
        ("Transpose", {"perm": [5, -7]}, [], 17),
        ("Softmax", {"axis": 99}, [], 17),
        ("LogSoftmax", {"axis": -99}, [], 17),
        ("ArgMax", {"axis": 99}, [], 17),
        ("Concat", {"axis": 50}, [], 17),
        ("Gather", {"axis": 9}, [weight("at", [0], np.int64)], 17),
        ("Gather", {"axis": 1}, [weight("at", [-(2**62)] * 8, np.int64)], 17),
        ("Split", {"num_outputs": 0}, [], 18),
        ("Split", {"num_outputs": -3}, [], 18),
        ("Split", {"num_outputs": 2**31 - 1}, [], 18),
        ("Squeeze", {}, [weight("which", [2**40], np.int64)], 17),
        ("Unsqueeze", {}, [weight("which", [5, 5], np.int64)], 17),
        ("Unsqueeze", {}, [weight("which", [-(2**63)], np.int64)], 17),
        ("Slice", {}, [weight("from", [0], np.int64), weight("to", [8], np.int64), weight("axis", [1], np.int64),
                       weight("step", [0], np.int64)], 17),
        ("Slice", {}, [weight("from", [0], np.int64), weight("to", [8], np.int64), weight("axis", [77], np.int64)], 17),
        ("LayerNormalization", {"axis": 40}, [weight("scale", np.ones(8))], 17),
        ("LayerNormalization", {"axis": 1}, [weight("scale", np.ones(3))], 17),
        ("BatchNormalization", {}, [weight(name, np.ones(5)) for name in "pqrs"], 17),
        ("Reshape", {}, [weight("to", [0, 0, 0, 0], np.int64)], 17),
        ("Reshape", {}, [weight("to", [-1, -1], np.int64)], 17),
        ("ReduceMean", {"axes": [99]}, [], 17),
        ("Gemm", {}, [weight("g", np.ones((3, 3, 3)))], 17),
        ("MatMul", {}, [weight("m", 1.0)], 17),
        ("Cast", {"to": 999}, [], 17),
        ("HardSigmoid", {"alpha": float("inf")}, [], 17),
    ]  # fmt: skip
    for index, (op, attributes, extra, opset) in enumerate(one):
        node = helper.make_node(op, ["hidden", *(tensor.name for tensor in extra)], ["out"], **attributes)
        last = helper.make_node("MatMul", ["out", "v"], ["logits"])
        yield f"bad-{op}-{index}", _with_node(node, last, weights=extra, opset=opset), "refused"


def _bytes_only(data: bytes) -> Iterator[tuple[str, bytes, Expected]]:
    """Files that a parser would have to refuse, or that cost it far more than their size."""
    yield "empty-nodes", b"\x08\x08" + _message(7, b"\x0a\x00" * 2_000_000), "refused"
    yield "empty-weights", b"\x08\x08" + _message(7, b"\x2a\x00" * 2_000_000), "refused"
    yield "small-integers", b"\x08\x08" + _message(7, _message(5, _message(7, b"\x01" * 4_000_000))), "refused"
    nested = b""
    for _ in range(5000):
        nested = _message(6, nested)
    yield "nested", b"\x08\x08" + _message(7, _message(1, _message(5, nested))), "refused"
    yield "group", data + b"\x0b" * 2000, "refused"
    yield "long-varint", b"\x08" + b"\xff" * 400, "refused"
    yield "long-length", data + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "refused"
    yield "pickle", b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.", "refused"
    yield "zip", b"PK\x03\x04" + b"\0" * 100, "refused"
    yield "text", b"import os\n", "refused"
    yield "zeros", b"\0" * 5000, "refused"


def _message(number: int, inside: bytes) -> bytes:
    length, size = b"", len(inside)
    while True:
        size, low = size >> 7, size & 0x7F
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([number << 3 | 2]) + length + inside
