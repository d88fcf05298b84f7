"""ONNX files for tests: a teacher's network written with onnx.helper, and the YAML beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from policykd.teachers.base import Teacher
from policykd.teachers.networks import (
    GSDE_EPSILON,
    LOG_STD_MAX,
    LOG_STD_MIN,
    ConstantStd,
    Dense,
    GsdeStd,
    LinearStd,
    Network,
)

_NODES = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu", "sigmoid": "Sigmoid"}
_IR = 8


def weight(name: str, values: Any, dtype: Any = np.float32) -> Any:
    """An initialiser."""
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model_of(
    nodes: Sequence[Any], weights: Sequence[Any], shape: Sequence[Any], outputs: Sequence[str], opset: int = 17
) -> Any:
    """A ModelProto with the input `obs` of this shape and outputs of unstated shape."""
    graph = helper.make_graph(
        list(nodes),
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in outputs],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR)


def gemm(index: int, before: str, after: str, w: Tensor, b: Tensor | None) -> tuple[list[Any], list[Any]]:
    """One dense layer: its node and its weights."""
    names = [f"w{index}"] + ([f"b{index}"] if b is not None else [])
    weights = [weight(name, value.numpy()) for name, value in zip(names, [w, b], strict=False) if value is not None]
    return [helper.make_node("Gemm", [before, *names], [after], transB=1)], weights


def onnx_of(teacher: Teacher, batch: Any = "batch") -> Any:
    """A teacher of dense layers as a ModelProto, its statistics inside; `batch` None or a text is free."""
    network = teacher.network
    assert isinstance(network, Network)
    nodes, weights, now = [helper.make_node("Flatten", ["obs"], ["x0"])], [], "x0"
    if teacher.normalizer is not None:
        n = teacher.normalizer
        weights += [weight("obs_mean", n.mean.ravel()), weight("obs_std", n.std.ravel())]
        weights += [weight("low", -n.clip), weight("high", n.clip)]
        nodes += [
            helper.make_node("Sub", [now, "obs_mean"], ["centred"]),
            helper.make_node("Div", ["centred", "obs_std"], ["scaled"]),
            helper.make_node("Clip", ["scaled", "low", "high"], ["normal"]),
        ]
        now = "normal"
    name = {"value": "q_values", "deterministic": "action"}.get(network.kind, "logits")
    name = "mean" if isinstance(network.head, LinearStd | ConstantStd | GsdeStd) and network.kind == "policy" else name
    latent = now
    for index, layer in enumerate(network.layers):
        latent = now
        last = index + 1 == len(network.layers)
        now = _dense(index, layer, now, name if last else f"x{index + 1}", nodes, weights)
    outputs = [now]
    if isinstance(network.head, LinearStd):
        made, more = gemm(99, latent, "spread", network.head.weight, network.head.bias)
        nodes += [*made, helper.make_node("Clip", ["spread", "least", "most"], ["log_std"])]
        weights += [*more, weight("least", LOG_STD_MIN), weight("most", LOG_STD_MAX)]
        outputs.append("log_std")
    elif isinstance(network.head, GsdeStd):
        now = _gsde(network.head, latent, now, nodes, weights)
        outputs = [now, "log_std"]
    elif isinstance(network.head, ConstantStd) and network.kind == "policy":
        weights.append(weight("spread", network.head.log_std.numpy()[None]))
        nodes.append(helper.make_node("Identity", ["spread"], ["log_std"]))
        outputs.append("log_std")
    return model_of(nodes, weights, [batch, *(teacher.observation_space.shape or ())], outputs)


def _gsde(head: GsdeStd, latent: str, mean: str, nodes: list[Any], weights: list[Any]) -> str:
    weights += [weight("variances", head.std.numpy() ** 2), weight("epsilon", GSDE_EPSILON)]
    nodes += [
        helper.make_node("Mul", [latent, latent], ["squares"]),
        helper.make_node("MatMul", ["squares", "variances"], ["variance"]),
        helper.make_node("Add", ["variance", "epsilon"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["std"]),
        helper.make_node("Log", ["std"], ["log_std"]),
    ]
    if head.clip_mean <= 0:
        return mean
    nodes[[node.output[0] for node in nodes].index(mean)].output[0] = "free"
    weights += [weight("least", -head.clip_mean), weight("most", head.clip_mean)]
    nodes.append(helper.make_node("Clip", ["free", "least", "most"], [mean]))
    return mean


def _dense(index: int, layer: Dense, now: str, after: str, nodes: list[Any], weights: list[Any]) -> str:
    active = layer.activation != "identity"
    made, more = gemm(index, now, f"{after}_before" if active else after, layer.weight, layer.bias)
    nodes += made
    weights += more
    if active:
        nodes.append(helper.make_node(_NODES[layer.activation], [f"{after}_before"], [after]))
    return after


def write(path: Path, model: Any, card: dict[str, Any] | None) -> Path:
    """The file, and its YAML beside it."""
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if card is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(card), "utf-8")
    return path


def card_of(teacher: Teacher, model: Any, **more: Any) -> dict[str, Any]:
    """The YAML of such a file."""
    from policykd.loss.distributions import SquashedDiagGaussian

    space = teacher.action_space
    if hasattr(space, "low"):
        actions: dict[str, Any] = {"type": "Box", "shape": list(space.shape)}
        actions |= {"low": space.low.ravel().tolist(), "high": space.high.ravel().tolist()}
    else:
        actions = {"type": "Discrete", "n": int(space.n)}
    card = {
        "env": teacher.info.env_id,
        "input": "obs",
        "action_space": actions,
        "outputs": {output.name: output.name for output in model.graph.output},
    }
    if isinstance(teacher.distribution, SquashedDiagGaussian):
        card["squashed"] = True
    elif teacher.network.unit_actions:
        card["unscale"] = True
    return card | more
