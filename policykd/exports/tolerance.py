"""How far a target may be from the reference: at most four times what torch's own float32 is off.

Let e be the largest error of torch in float32 against the same graph in float64, for each number of the action (or of
the outputs), over the test vectors and up to 4,096 other observations, each computed with the sums taken in eight
orders: a right program adds in some order. e is at least half the float32 spacing of the largest value: no float32
does better. With m the largest magnitude, |found - expected| <= 2 e + 2 (e / m) |expected| is asked for, which is at
most 4 e.
Choices must be equal, but where the best two logits are nearer to each other than the largest tolerance of a logit.
Of a graph with a memory that is asked of every step, both starting from one state; and of whole sequences, where each
carries its own state and errors add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d, unfold

from policykd.exports.graph import Array, Conv, Dense, Feed, Graph, Parallel, Residual, Stateless
from policykd.exports.gru import Gru, begun
from policykd.exports.interface import STATE_OUT
from policykd.exports.reference import action_of, apply, decided, features, margins, run
from policykd.exports.stepwise import run_stepwise, stepwise
from policykd.students.gru import gru_step

Doubles = NDArray[np.float64]
_ORDERS = 8
_MOST = 2**23  # numbers under all windows of the rows that are computed at once


@dataclass(frozen=True, eq=False)
class Bound:
    """|found - expected| <= absolute + relative * |expected|, entry by entry: [A] each."""

    absolute: Doubles
    relative: Doubles

    def exceeded(self, found: Array, expected: Array) -> NDArray[np.bool_]:
        """[B, A]: where the bound does not hold. A NaN never holds."""
        found, expected = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (found, expected))
        return ~(np.abs(found - expected) <= self.absolute + self.relative * np.abs(expected))

    def to_json(self) -> dict[str, Any]:
        """The numbers as lists."""
        return {"absolute": self.absolute.tolist(), "relative": self.relative.tolist()}

    @classmethod
    def from_json(cls, doc: dict[str, Any]) -> Bound:
        """The inverse of `to_json`; ValueError for anything but finite numbers that are not negative."""
        absolute, relative = (np.asarray(doc[name], np.float64) for name in ("absolute", "relative"))
        if absolute.ndim != 1 or absolute.shape != relative.shape or absolute.size > 2**20:
            raise ValueError("a tolerance is two lists of one length")
        if not (np.isfinite([absolute, relative]).all() and (absolute >= 0).all() and (relative >= 0).all()):
            raise ValueError("a tolerance is finite and not negative")
        return cls(absolute, relative)


@dataclass(frozen=True, eq=False)
class Tolerance:
    """`action`: of numbers, None for choices and bits. `outputs`: of logits or means [M]. `margin`: choices whose
    highest two logits are nearer than this may differ. `state`: of what is remembered [H], None without a memory."""

    action: Bound | None
    outputs: Bound
    margin: float
    state: Bound | None = None


def tolerance_of(graph: Graph, *feeds: Feed) -> Tolerance:
    """What torch is off in float32 over all rows of `feeds`, at worst, whatever the order in which it adds. With a
    memory each row is a step from the state in its feed, float32."""
    rng = np.random.default_rng(0)
    outputs, actions, states = [], [], []
    for feed in feeds:
        exact = run(graph, feed)
        for order in range(_ORDERS):
            found, state = _in_float32(graph, feed, rng if order else None)
            outputs.append((found, exact.outputs))
            actions.append((action_of(graph, found, feed), exact.action))
            states.append((state, exact.state))
    tolerance = _tolerance(graph, outputs, actions)
    return replace(tolerance, state=_bound(states)) if graph.state_size else tolerance


def tolerance_of_sequences(graph: Graph, *sequences: tuple[Feed, int]) -> Tolerance:
    """The same over whole sequences, (rows, lanes) each, of a graph with a memory."""
    rng = np.random.default_rng(0)
    outputs, actions, states = [], [], []
    for feed, lanes in sequences:
        exact = run_stepwise(graph, feed, lanes)
        assert exact.state is not None
        for order in range(_ORDERS):

            def step(part: Feed, order: int = order) -> dict[str, Array]:
                found, state = _in_float32(graph, part, rng if order else None)
                return {"outputs": found, STATE_OUT: state}

            found = stepwise(step, feed, lanes, graph.state_size)
            outputs.append((found["outputs"], exact.outputs))
            actions.append((action_of(graph, found["outputs"], feed), exact.action))
            states.append((found[STATE_OUT], exact.state))
    return replace(_tolerance(graph, outputs, actions), state=_bound(states))


def _tolerance(graph: Graph, outputs: list[tuple[Array, Array]], actions: list[tuple[Array, Array]]) -> Tolerance:
    """From (found, exact) of several computations."""
    bound = _bound(outputs)
    numbers = graph.head.kind == "numbers"
    largest = np.max([np.abs(exact).max(0) for _, exact in outputs], 0)
    widest = float(np.max(bound.absolute + bound.relative * largest))
    return Tolerance(_bound(actions) if numbers else None, bound, 0.0 if numbers else widest)


def _in_float32(graph: Graph, feed: Feed, rng: np.random.Generator | None) -> tuple[Array, Array]:
    """Outputs [B, M] by torch in float32, and the next state [B, H]; with `rng` the sums of each layer are taken in
    another order."""
    parts = zip(graph.ports, feed.observations, strict=True)
    x = torch.from_numpy(np.concatenate([features(port, part) for port, part in parts], -1))
    state = x[:, :0]
    for layer in graph.layers:
        if isinstance(layer, Gru):
            hidden = torch.from_numpy(begun(feed.state, feed.start, len(feed), layer, np.float32))
            x = state = _gru_in_float32(layer, x, hidden, rng)
        else:
            x = _next(rng, x, layer)
    return np.asarray(x.numpy()), np.asarray(state.numpy())


def _next(rng: np.random.Generator | None, x: Tensor, layer: Stateless) -> Tensor:
    """One layer on [B, in]."""
    if isinstance(layer, Dense):
        order = np.arange(len(layer.weight)) if rng is None else rng.permutation(len(layer.weight))
        weight, bias = torch.from_numpy(layer.weight[order]), torch.from_numpy(layer.bias)
        return torch.addmm(bias, x[:, torch.from_numpy(order)], weight)
    if isinstance(layer, Conv):
        return _convolved(rng, x, layer)
    step = partial(_next, rng)
    if isinstance(layer, Residual):
        return x + reduce(step, layer.layers, x)
    if isinstance(layer, Parallel):
        return torch.cat([reduce(step, part, x[:, begin:end]) for begin, end, part in layer.parts], -1)
    return torch.from_numpy(apply(layer, x.numpy()))


def _convolved(rng: np.random.Generator | None, x: Tensor, layer: Conv) -> Tensor:
    """By torch's own conv2d; with `rng` as sums over inputs and taps of the kernel in another order."""
    weight, bias = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
    images = x.reshape(len(x), weight.shape[1], layer.height, layer.width)
    if rng is None:
        return conv2d(images, weight, bias, layer.stride, layer.padding).flatten(1)
    flat = weight.reshape(len(weight), -1)
    order = torch.from_numpy(rng.permutation(flat.shape[1]))
    rows = max(1, _MOST // (flat.shape[1] * math.prod(layer.out)))
    found = [  # [rows, O, h' * w'] each
        flat[:, order] @ unfold(part, weight.shape[2:], padding=layer.padding, stride=layer.stride)[:, order]
        for part in images.split(rows)
    ]
    return (torch.cat(found) + bias[:, None]).flatten(1)


def _gru_in_float32(layer: Gru, x: Tensor, hidden: Tensor, rng: np.random.Generator | None) -> Tensor:
    """The next state; with `rng` what goes into a gate is one sum over inputs and state, in some order."""
    parts = {name: torch.from_numpy(part) for name, part in layer.arrays.items()}
    if rng is None:
        return gru_step(parts, x, hidden)
    n, both = layer.size, torch.cat([x, hidden], 1)
    whole, first, second = (torch.from_numpy(rng.permutation(k)) for k in (both.shape[1], x.shape[1], n))
    w, u, b = parts["gru.input"], parts["gru.state"], parts["gru.bias"]
    weights = torch.cat([w[: 2 * n], u[: 2 * n]], 1)[:, whole]
    gates = torch.sigmoid(torch.addmm(b[: 2 * n], both[:, whole], weights.T))
    seen = torch.addmm(b[2 * n :], x[:, first], w[2 * n :, first].T)
    known = torch.addmm(parts["gru.new_bias"], hidden[:, second], u[2 * n :, second].T)
    new = torch.tanh(seen + gates[:, :n] * known)
    return new + gates[:, n:] * (hidden - new)


def _bound(pairs: Sequence[tuple[Array, Any]]) -> Bound:
    """From (found, exact) of several computations, [B, ...] each."""
    flat = [(np.asarray(a, np.float64).reshape(len(a), -1), np.asarray(b).reshape(len(b), -1)) for a, b in pairs]
    largest = np.max([np.abs(exact).max(0) for _, exact in flat], 0)
    largest = np.maximum(largest, np.finfo(np.float32).tiny)
    error = np.max([np.abs(found - exact).max(0) for found, exact in flat], 0)
    error = np.maximum(error, np.spacing(largest.astype(np.float32)).astype(np.float64) / 2)
    return Bound(2 * error, 2 * error / largest)


def margin_of(graph: Graph, feed: Feed, outputs: Array) -> Array:
    """[B, K]: how far the winner of each choice is ahead in outputs [B, M], with mask and noise; inf for numbers,
    [B, 1]."""
    if graph.head.kind == "numbers":
        return np.full((len(feed), 1), np.inf)
    return margins(graph, decided(graph, outputs, feed))
