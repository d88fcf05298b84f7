"""Test vectors: observations that tell a right export from a wrong one, and what must come out.

Three quarters come from real episodes of the student (`recorded`), or are drawn from its normaliser's statistics
(`synthetic`); the rest are extremes, found by search among many more draws: where each number of the action is largest
and smallest, so that clips and squashes bind, where the highest two logits are near each other, so that a small change
of a weight changes a choice, and values far outside, where the normaliser clips.
Of a graph with a memory they are whole sequences (`policykd.exports.sequences`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policykd.exports.graph import Array, Feed, Graph, Port
from policykd.exports.interface import START, Interface, random_noise
from policykd.exports.layers import numbers_under_windows, statistics_of
from policykd.exports.reference import margins, run
from policykd.exports.stepwise import following, laid, run_stepwise
from policykd.exports.tolerance import Tolerance, margin_of, tolerance_of, tolerance_of_sequences
from policykd.spine.errors import InputError, brief
from policykd.spine.files import write_atomic

COUNT = 256
LANES, STEPS = 8, 64
"""Of a graph with a memory: sequences, and steps of each."""
FILE = "vectors.safetensors"
_MAX_FILE = 2**28
Source = Literal["recorded", "synthetic"]
_EXTREMES, _DRAWN, _LEAST = COUNT // 4, 4096, 512
DRAWN_LANES = _DRAWN // STEPS
_MOST_NUMBERS = 2**24  # in all draws together, and under the windows of their convolutions: of images fewer are drawn
_WIDTHS = (0.3, 1.0, 3.0, 30.0)  # of draws, in standard deviations; the widest is beyond the normaliser's clip


@dataclass(frozen=True, eq=False)
class Vectors:
    """What goes in, and what the reference (float64) gives: `action` [B, *shape], `outputs` [B, M], `margin` [B, K].
    Of a graph with a memory the rows are `lanes` sequences, step after step, and `state` [B, H] is the next one."""

    feed: Feed
    action: Array
    outputs: Array
    margin: Array
    state: Array | None = None
    lanes: int = 0

    def rows(self, index: Any) -> Vectors:
        """The rows of `index`, without what ties them together."""
        state = None if self.state is None else self.state[index]
        return Vectors(self.feed.rows(index), self.action[index], self.outputs[index], self.margin[index], state)

    def lane(self, index: int) -> Vectors:
        """One of the sequences."""
        return replace(self.rows(slice(index, None, self.lanes)), lanes=1)


def feed_of(graph: Graph, recorded: Sequence[Array] | None, mask: Array | None, seed: int = 0) -> Feed:
    """COUNT vectors: of `recorded` observations (one array per port, with their masks), or synthetic ones."""
    rng = np.random.default_rng(seed)
    drawn = draws(graph, rng)
    extremes = drawn.rows(_extremes(graph, drawn, rng))
    plain = COUNT - len(extremes)
    if recorded is None:
        usual = drawn.rows(rng.choice(len(drawn) // len(_WIDTHS) * 2, plain, replace=False))  # the two narrow widths
    else:
        rows = np.sort(rng.choice(len(recorded[0]), plain, replace=len(recorded[0]) < plain))
        parts = tuple(np.asarray(part)[rows] for part in recorded)
        usual = Feed(parts, None if mask is None else np.asarray(mask)[rows], _noise(graph, plain, rng))
    return joined(usual, extremes)


def draws(graph: Graph, rng: np.random.Generator) -> Feed:
    """4,096 observations about the normalisers' statistics, from near to far outside, with masks and noise; of images
    fewer, 512 at least."""
    mean, scale = statistics_of(graph.layers, graph.n_features)
    std = 1.0 / np.where(scale == 0, 1.0, scale)
    widths = np.repeat(_WIDTHS, _count(graph) // len(_WIDTHS))[:, None]
    parts, begin = [], 0
    for port in graph.ports:
        end = begin + port.n_features
        parts.append(_port(port, mean[begin:end], std[begin:end], widths, rng))
        begin = end
    return Feed(tuple(parts), _mask(graph, len(widths), rng), _noise(graph, len(widths), rng))


def _count(graph: Graph) -> int:
    """How many observations are drawn."""
    read = numbers_under_windows(graph.layers)
    return min(_DRAWN, max(_LEAST, _MOST_NUMBERS // (graph.n_features + read))) if read else _DRAWN


def _port(port: Port, mean: Array, std: Array, widths: Array, rng: np.random.Generator) -> Array:
    shape = (len(widths), *port.shape)
    if port.nvec:
        choices = [start + rng.integers(0, n, len(widths)) for n, start in zip(port.nvec, port.start, strict=True)]
        return np.stack(choices, -1).reshape(shape).astype(port.dtype)
    values = mean + std * widths * rng.standard_normal((len(widths), port.size))
    dtype = np.dtype(port.dtype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        values = np.clip(np.rint(values), bounds.min, bounds.max)
    return values.reshape(shape).astype(dtype)


def _mask(graph: Graph, n: int, rng: np.random.Generator) -> NDArray[np.bool_] | None:
    if not graph.masked:
        return None
    sizes = graph.head.branches or (2,) * graph.head.size
    parts = []
    for size in sizes:
        part = rng.random((n, size)) < 0.6
        part[np.arange(n), rng.integers(size, size=n)] = True
        parts.append(part)
    return np.concatenate(parts, -1)


def _noise(graph: Graph, n: int, rng: np.random.Generator) -> Any:
    return random_noise(graph.head.law, (n, graph.head.size), rng) if graph.stochastic else None


def _extremes(graph: Graph, drawn: Feed, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of the most telling draws, _EXTREMES at most, each once."""
    exact = run(graph, drawn)
    if graph.head.kind == "numbers":
        keys = [sign * column for column in exact.outputs.T for sign in (1, -1)]
    else:
        near = margins(graph, exact.outputs)
        near = np.where(near < np.quantile(near, 0.02), np.inf, near)  # too near to tell
        keys = [-column for column in near.T] + [sign * column for column in exact.outputs.T for sign in (1, -1)]
    each = max(1, _EXTREMES // (2 * len(keys)))
    found = [position for key in keys for position in np.argsort(key)[-each:].tolist()]
    wide = rng.choice(np.arange(len(drawn) * 3 // 4, len(drawn)), _EXTREMES, replace=False).tolist()
    return np.asarray(list(dict.fromkeys([*found[: _EXTREMES * 3 // 4], *wide]))[:_EXTREMES])


def joined(first: Feed, second: Feed) -> Feed:
    """The rows of both."""

    def both(a: Any, b: Any) -> Any:
        return None if a is None or b is None else np.concatenate([a, b])

    parts = tuple(both(a, b) for a, b in zip(first.observations, second.observations, strict=True))
    others = ("mask", "noise", "state", "start")
    return Feed(parts, *(both(getattr(first, name), getattr(second, name)) for name in others))


def proof_of(graph: Graph, feed: Feed, lanes: int = 0) -> tuple[Vectors, Tolerance]:
    """What must come out for the feed, by the reference in float64, and how near it must be. `lanes`: how many
    sequences the feed holds, of a graph with a memory."""
    rng = np.random.default_rng(1)
    if graph.state_size:
        exact = run_stepwise(graph, feed, lanes)
        others = laid(draws(graph, rng), DRAWN_LANES, rng)
        tolerance = tolerance_of_sequences(graph, (feed, lanes), (others, DRAWN_LANES))
    else:
        exact = run(graph, feed)
        tolerance = tolerance_of(graph, feed, draws(graph, rng))
    margin = margin_of(graph, feed, exact.outputs)
    return Vectors(feed, exact.action, exact.outputs, margin, exact.state, lanes), tolerance


def steps_of(graph: Graph, vectors: Vectors, after: Array) -> Vectors:
    """The same sequences, but every step from the state that `after` [B, H] says the step before left: what must come
    out of a step does not depend on what went a little wrong in those before it."""
    feed = following(vectors.feed, vectors.lanes, after)
    exact = run(graph, feed)
    margin = margin_of(graph, feed, exact.outputs)
    return Vectors(feed, exact.action, exact.outputs, margin, exact.state, vectors.lanes)


def tolerance_of_steps(graph: Graph, vectors: Vectors) -> Tolerance:
    """How near the result of a step must be, over those of the vectors and of as many sequences again as are drawn."""
    rng = np.random.default_rng(1)
    others = laid(draws(graph, rng), DRAWN_LANES, rng)
    feeds = []
    for feed, lanes in ((vectors.feed, vectors.lanes), (others, DRAWN_LANES)):
        after = run_stepwise(graph, feed, lanes).state
        assert after is not None
        feeds.append(following(feed, lanes, after.astype(np.float32)))
    return tolerance_of(graph, *feeds)


def write(vectors: Vectors, interface: Interface, folder: Path) -> None:
    """`vectors.safetensors`: obs.NAME for each port, action_masks, noise, action, outputs, margin; float64 where the
    reference is. With a memory also episode_start and state (the next one), and all of them are [steps, sequences, ...]
    instead of [B, ...]."""
    from safetensors.numpy import save

    feed = vectors.feed
    tensors = {f"obs.{port.name}": part for port, part in zip(interface.ports, feed.observations, strict=True)}
    tensors |= {"action": vectors.action, "outputs": vectors.outputs, "margin": vectors.margin}
    more = {"action_masks": feed.mask, "noise": feed.noise, START: feed.start, "state": vectors.state}
    tensors |= {name: value for name, value in more.items() if value is not None}
    if vectors.lanes:
        tensors = {name: value.reshape(-1, vectors.lanes, *value.shape[1:]) for name, value in tensors.items()}
    write_atomic(folder / FILE, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))


def read(folder: Path, interface: Interface) -> Vectors:
    """The vectors of an export; InputError where the file is missing, damaged, or does not fit the interface."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / FILE
    if not path.is_file() or path.stat().st_size > _MAX_FILE:
        raise InputError(f"{path}: missing, or larger than {_MAX_FILE} bytes; export the student again")
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: not a safetensors file ({brief(error)}); export the student again") from None
    found = {name: value.shape for name, value in tensors.items()}
    depth = 2 if interface.state_size else 1
    lead = (*found.get("action", ()), 0, 0)[:depth]
    expected = {name: (*lead, *shape) for name, shape in _shapes(interface).items()}
    if 0 in lead or found != expected:
        raise InputError(f"{path}: holds {brief(found)}, expected {brief(expected)}; export the student again")
    lanes = lead[1] if interface.state_size else 0
    if lanes:
        tensors = {name: value.reshape(-1, *value.shape[2:]) for name, value in tensors.items()}
    feed = Feed(
        tuple(tensors[f"obs.{port.name}"].astype(port.dtype, copy=False) for port in interface.ports),
        tensors["action_masks"].astype(np.bool_) if interface.mask_size else None,
        tensors["noise"].astype(np.float32) if interface.noise_size else None,
        start=tensors[START].astype(np.bool_) if lanes else None,
    )
    return Vectors(feed, tensors["action"], tensors["outputs"], tensors["margin"], tensors.get("state"), lanes)


def _shapes(interface: Interface) -> dict[str, tuple[int, ...]]:
    """Of one row of every tensor in the file."""
    choices = len(interface.branches) if interface.kind == "choices" else interface.n_outputs
    expected: dict[str, tuple[int, ...]] = {f"obs.{port.name}": port.shape for port in interface.ports}
    expected |= {"action": interface.action.shape, "outputs": (interface.n_outputs,)}
    expected |= {"margin": (1 if interface.kind == "numbers" else choices,)}
    expected |= {"action_masks": (interface.mask_size,)} if interface.mask_size else {}
    expected |= {"noise": (interface.noise_size,)} if interface.noise_size else {}
    return expected | ({START: (), "state": (interface.state_size,)} if interface.state_size else {})
