"""Which stable-baselines3 model holds a student: the algorithm, and whether a plain policy is enough.

Plain: MlpPolicy (MultiInputPolicy for a Dict), with a VecNormalize in front where the normaliser does something. That
is exact where what it scales are Box observations of float32 or float64. Not where a choice or a bit is scaled
(VecNormalize takes Box only), where integers or float16 are (the rollout buffer keeps them in their own dtype and would
round what VecNormalize made of them), and not for images (SB3 reorders and divides them, or puts a CNN there). Then the
policy has our features extractor, with the normaliser inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from torch import nn

from policykd.exports.graph import Activate, Conv, Dense, Floats, Graph, Normalise, Parallel, Port, Tree
from policykd.spine.errors import InputError
from policykd.spine.spaces import decode_space

_EXACT = ("float32", "float64")


@dataclass(frozen=True)
class Plan:
    """`algorithm`: PPO, MaskablePPO or SAC. `plain`: see above. `normalised`: the ports that VecNormalize scales (none:
    no VecNormalize). `channels_last`: images that SB3 reorders, by key ("" for a plain space)."""

    algorithm: str
    plain: bool
    normalised: tuple[str, ...]
    channels_last: tuple[str, ...]


def plan_of(graph: Graph) -> Plan:
    """The plan for a graph that `refuse` lets pass."""
    algorithm = "SAC" if graph.head.squash else "MaskablePPO" if graph.masked else "PPO"
    scaled = [port for port, mean, scale in shares(graph) if not _is_identity(graph, port, mean, scale)]
    held = all(port.dtype in _EXACT and not port.nvec and isinstance(space_at(graph, port), spaces.Box)
               and (scale > 0).all() for port, _, scale in shares(graph) if port in scaled)  # fmt: skip
    images = [port for port in graph.ports if is_image_space(space_at(graph, port))]
    plain = held and not images and all(_is_module_name(port) for port in graph.ports)
    last = [key_of(port) for port in images if not is_image_space_channels_first(_box(space_at(graph, port)))]
    return Plan(algorithm, plain, tuple(port.name for port in scaled) if plain else (), tuple(last))


def refuse(graph: Graph) -> None:
    """InputError, in one line, for a student that no stable-baselines3 model holds."""
    problem = (
        _problem_of_layers(graph)
        or _problem_of_options(graph)
        or _problem_of_observations(graph)
        or _problem_of_actions(graph)
    )
    if problem:
        raise InputError(f"--to sb3: {problem}")


def shares(graph: Graph) -> list[tuple[Port, Floats, Floats]]:
    """Each port with its part of the normaliser's mean and scale, [F of the port] each."""
    layer, begin, found = graph.layers[0], 0, []
    assert isinstance(layer, Normalise)
    for port in graph.ports:
        end = begin + port.n_features
        found.append((port, layer.mean[begin:end], layer.scale[begin:end]))
        begin = end
    return found


def key_of(port: Port) -> str:
    """The port's key in a Dict observation; "" for a plain one."""
    return str(port.path[0]) if port.path else ""


def space_at(graph: Graph, port: Port) -> spaces.Space[Any]:
    """The space of one port."""
    doc = graph.observation_space
    return decode_space(doc["spaces"][key_of(port)] if port.path else doc)


def _is_identity(graph: Graph, port: Port, mean: Floats, scale: Floats) -> bool:
    """Whether the normaliser leaves every observation of the port as it is."""
    layer, space = graph.layers[0], space_at(graph, port)
    assert isinstance(layer, Normalise)
    largest = 1.0 if not isinstance(space, spaces.Box) else float(np.abs([space.low, space.high]).max())
    return bool((mean == 0).all() and (scale == 1).all() and largest <= layer.limit)


def _is_module_name(port: Port) -> bool:
    """Whether SB3's CombinedExtractor can hold the key: it takes it for the name of a torch module."""
    key = key_of(port)
    return not port.path or (bool(key) and "." not in key and not hasattr(nn.ModuleDict(), key))


def _box(space: spaces.Space[Any]) -> spaces.Box:
    assert isinstance(space, spaces.Box)
    return space


def _problem_of_options(graph: Graph) -> str:
    if graph.stochastic or graph.with_distribution:
        return (
            "a zip has no input for noise and no output for the distribution; leave --stochastic and "
            "--with-distribution out: predict(deterministic=False) of SB3 samples, and policy.get_distribution tells"
        )
    return "" if graph.observation_space and graph.action_space else "the graph does not tell its spaces: use graph_of"


def _problem_of_layers(graph: Graph) -> str:
    if graph.state_size:
        return (
            "the student has a memory (student.kind=gru), and stable-baselines3 has no policy with a GRU "
            "(RecurrentPPO's is an LSTM); choose onnx, c or torch"
        )
    if any(isinstance(layer, Tree) for layer in graph.layers):
        return (
            "the student is a decision tree (student.kind=tree), and policies of stable-baselines3 are networks; "
            "choose c, json, onnx or torch"
        )
    if any(isinstance(layer, Conv | Parallel) for layer in graph.layers):
        return (
            "the student has convolutions, or encoders side by side (student.kind=cnn or multi), and only students of "
            "kind mlp become policies of stable-baselines3 here; choose onnx, c or torch"
        )
    first, *rest = graph.layers
    kinds = {layer.kind for layer in rest if isinstance(layer, Activate)}
    expected = [Dense if i % 2 == 0 else Activate for i in range(len(rest))]
    fits = isinstance(first, Normalise) and first.repeat == 1 and len(rest) % 2 == 1 and len(kinds) <= 1
    if not fits or [type(layer) for layer in rest] != expected:
        return "expected a normaliser, then dense layers with one activation between them; choose another target"
    return ""


def _problem_of_observations(graph: Graph) -> str:
    if any(len(port.path) > 1 or isinstance(next(iter(port.path), ""), int) for port in graph.ports):
        return (
            "stable-baselines3 takes no Tuple and no Dict inside a Dict as observation; choose another target, or wrap "
            "the environment so that it gives one flat Dict and distil again"
        )
    for port in graph.ports:
        if any(port.start) or (port.nvec and len(port.shape) > 1):
            return (
                f"observation {port.name!r:.80} has choices that do not start at 0 or stand in a matrix, which "
                "stable-baselines3 cannot take; choose another target"
            )
    order = {is_image_space_channels_first(_box(space)) for port in graph.ports
             if is_image_space(space := space_at(graph, port))}  # fmt: skip
    if len(order) > 1:
        return (
            "stable-baselines3 takes images with channels first or with channels last, not both; choose another target"
        )
    return ""


def _problem_of_actions(graph: Graph) -> str:
    action = graph.action
    if any(action.start):
        return (
            f"actions start at {list(action.start)[:8]}, and stable-baselines3 sends 0, 1 ... to the environment; "
            "choose another target, or wrap the environment so that they start at 0 and distil again"
        )
    if action.kind in ("multi_discrete", "multi_binary") and len(action.shape) != 1:
        return (
            f"actions of shape {action.shape} are no plain list, which stable-baselines3 needs; choose another target"
        )
    if action.kind == "clip" and not np.isfinite([*action.low, *action.high]).all():
        return "the action space has infinite bounds, which stable-baselines3 refuses; choose another target"
    return ""
