"""The graph, computed with NumPy in any precision: what every target is compared with."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from policykd.exports.convolution import channels_first, convolved
from policykd.exports.graph import (
    Activate,
    Array,
    ChannelsFirst,
    Conv,
    Dense,
    Feed,
    Graph,
    Normalise,
    Parallel,
    Port,
    Residual,
    Result,
    Stateless,
    Tree,
)
from policykd.exports.gru import Gru, advanced, begun
from policykd.spine.masks import masked_logits


def run(graph: Graph, feed: Feed, dtype: Any = np.float64) -> Result:
    """Actions and outputs for a batch. Observations, weights and noise are float32 first, as every target takes them;
    then everything is computed in `dtype`."""
    x = np.concatenate([features(port, part) for port, part in zip(graph.ports, feed.observations, strict=True)], -1)
    x = x.astype(dtype)
    state = None
    for layer in graph.layers:
        if isinstance(layer, Gru):
            x = state = advanced(layer, x, begun(feed.state, feed.start, len(feed), layer, dtype))
        else:
            x = apply(layer, x)
    return Result(action_of(graph, x, feed), x, state)


def features(port: Port, values: Array) -> Array:
    """Features [B, F] of one port, float32."""
    flat = np.asarray(values).reshape(len(values), port.size)
    if not port.nvec:
        return flat.astype(np.float32)
    hot = [flat[:, [i]] == np.arange(s, s + n) for i, (n, s) in enumerate(zip(port.nvec, port.start, strict=True))]
    return np.concatenate(hot, -1).astype(np.float32)


def apply(layer: Stateless, x: Array) -> Array:
    """One layer on [B, in], in the dtype of `x`."""
    if isinstance(layer, Tree):  # float32 went in, so the comparisons are those of float32
        return layer.nodes.outputs(x).astype(x.dtype)
    return _applied(layer, x) if isinstance(layer, Normalise | Dense | Activate) else _of_image(layer, x)


def _applied(layer: Normalise | Dense | Activate, x: Array) -> Array:
    if isinstance(layer, Normalise):
        mean, scale = (np.repeat(values, layer.repeat).astype(x.dtype) for values in (layer.mean, layer.scale))
        return np.asarray(np.clip((x - mean) * scale, -layer.limit, layer.limit))
    if isinstance(layer, Dense) and layer.scale is not None:
        return np.asarray(x @ layer.whole.astype(x.dtype) * layer.scale.astype(x.dtype) + layer.bias.astype(x.dtype))
    if isinstance(layer, Dense):
        return np.asarray(x @ layer.weight.astype(x.dtype) + layer.bias.astype(x.dtype))
    return np.tanh(x) if layer.kind == "tanh" else np.maximum(x, 0)


def _of_image(layer: ChannelsFirst | Conv | Residual | Parallel, x: Array) -> Array:
    if isinstance(layer, ChannelsFirst):
        return channels_first(layer, x)
    if isinstance(layer, Conv):
        return convolved(layer, x)
    if isinstance(layer, Residual):
        return np.asarray(x + reduce(_next, layer.layers, x))
    return np.concatenate([reduce(_next, inner, x[:, begin:end]) for begin, end, inner in layer.parts], -1)


def _next(x: Array, layer: Stateless) -> Array:
    return apply(layer, x)


def action_of(graph: Graph, outputs: Array, feed: Feed) -> Array:
    """Environment actions for outputs [B, M], with the mask and the noise of `feed`."""
    x = decided(graph, outputs, feed)
    if graph.head.kind == "numbers":
        return _mapped(graph, np.tanh(x) if graph.head.squash else x)
    return graph.action(chosen(graph, x))


def decided(graph: Graph, outputs: Array, feed: Feed) -> Array:
    """Outputs [B, M] with the noise added and, of what the mask forbids, -inf (a bit that is forced: inf or -inf)."""
    head, x = graph.head, outputs
    if graph.stochastic and feed.noise is not None:
        spread = np.exp(head.log_std.astype(x.dtype)) if head.kind == "numbers" else 1.0
        x = x + spread * feed.noise.astype(x.dtype)
    if graph.masked and feed.mask is not None:
        x = masked_logits({"type": "Bernoulli" if head.kind == "bits" else "choices"}, x, feed.mask)
    return x


def chosen(graph: Graph, logits: Array) -> Array:
    """The action of the distribution that has the highest logits: index [B], indices [B, K] or bits [B, M]."""
    if graph.head.kind == "bits":
        return (logits > 0).astype(np.int64)
    parts = np.split(logits, np.cumsum(graph.head.branches)[:-1], -1)
    picked = np.stack([part.argmax(-1) for part in parts], -1)
    return picked[:, 0] if graph.action.kind == "discrete" else picked


def margins(graph: Graph, logits: Array) -> Array:
    """How far the highest logit of each choice is above the second, [B, K]; of a bit, its distance from 0."""
    if graph.head.kind == "bits":
        return np.abs(logits)
    parts = np.split(np.asarray(logits), np.cumsum(graph.head.branches)[:-1], -1)
    tops = [np.sort(part, -1)[:, -2:] for part in parts]
    gaps = [top[:, 1] - top[:, 0] if top.shape[1] > 1 else np.full(len(top), np.inf) for top in tops]
    return np.asarray(np.nan_to_num(np.stack(gaps, -1), nan=np.inf))


def _mapped(graph: Graph, actions: Array) -> Array:
    """Clipped or unscaled to the bounds in the dtype of `actions`, not in that of the environment."""
    action = graph.action
    low, high = np.asarray(action.low, actions.dtype), np.asarray(action.high, actions.dtype)
    batch = (len(actions), *action.shape)
    if action.kind == "clip":
        return np.asarray(np.clip(actions, low, high)).reshape(batch)
    unit = np.clip(actions, -1.0, 1.0)
    return np.asarray(low + (0.5 * (unit + 1.0) * (high - low))).reshape(batch)
