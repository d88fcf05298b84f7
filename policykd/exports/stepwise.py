"""Graphs with a memory, step by step: sequences side by side in lanes, the state that comes out going in again.

Rows lie step after step: of B lanes row t * B + b is step t of lane b. Episodes begin where `Feed.start` says so, in
every lane at its first step. Into that goes a state of NaN, so that whoever does not forget is found out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from policykd.exports.graph import Array, Feed, Graph, Result
from policykd.exports.interface import ACTION, STATE_OUT
from policykd.exports.reference import run

Step = Callable[[Feed], dict[str, Array]]
_BEGINS = 1 / 12  # of the steps of `laid`
_OUTPUTS = "outputs"


def stepwise(step: Step, feed: Feed, lanes: int, size: int) -> dict[str, Array]:
    """What `step` gives for the rows of all lanes, by name. `size` numbers are remembered; `feed.state` is not
    asked."""
    state: Array = np.full((lanes, size), np.nan, np.float32)
    found: list[dict[str, Array]] = []
    for at in range(0, len(feed), lanes):
        found.append(step(replace(feed.rows(slice(at, at + lanes)), state=state)))
        state = found[-1][STATE_OUT]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def run_stepwise(graph: Graph, feed: Feed, lanes: int, dtype: Any = np.float64) -> Result:
    """The reference over whole sequences; the state is carried in `dtype`."""

    def step(part: Feed) -> dict[str, Array]:
        result = run(graph, part, dtype)
        assert result.state is not None
        return {ACTION: result.action, _OUTPUTS: result.outputs, STATE_OUT: result.state}

    found = stepwise(step, feed, lanes, graph.state_size)
    return Result(found[ACTION], found[_OUTPUTS], found[STATE_OUT])


def laid(feed: Feed, lanes: int, rng: np.random.Generator) -> Feed:
    """Rows of one lane after the other, of equal lengths, as rows step after step; episodes begin now and then."""
    steps = len(feed) // lanes
    start = rng.random((steps, lanes)) < _BEGINS
    start[0] = True
    order = np.arange(lanes * steps).reshape(lanes, steps).T.ravel()
    return replace(feed.rows(order), start=start.ravel())


def following(feed: Feed, lanes: int, after: Array) -> Feed:
    """The rows with the state that goes into each: that of `after` [rows, H] which the step before left, and NaN at the
    first. A graph is then run on all steps at once, and no step has the errors of those before it."""
    first = np.full((lanes, after.shape[1]), np.nan, after.dtype)
    return replace(feed, state=np.concatenate([first, after[:-lanes]]))
