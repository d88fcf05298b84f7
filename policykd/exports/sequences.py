"""Test vectors of a graph with a memory: eight sequences of 64 steps, in each several episodes one behind the other.

Six come from real episodes of the student: the first is one stretch without a reset where an episode is long enough,
the others are stretches of 4 to 32 steps, from an episode's start or from anywhere in it, each taken for an episode of
its own. Without a recording they are drawn near the normaliser's statistics. The last two are found among draws far
from them, where clips and squashes bind and choices are near each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.evaluation.actors import Actor, chosen
from policykd.exports.graph import Array, Feed, Graph
from policykd.exports.interface import random_noise
from policykd.exports.reference import margins
from policykd.exports.stepwise import laid, run_stepwise
from policykd.exports.vectors import DRAWN_LANES, LANES, STEPS, draws, joined
from policykd.spine.types import Turn

_EXTREME = 2  # lanes
_BYTES, _MOST = 2**26, 512  # of all observations that are kept, and steps of one episode
_SHORTEST, _LONGEST = 4, 32  # steps of a stretch


@dataclass(frozen=True, eq=False)
class Stretch:
    """Packed observations [L, *O] of one episode from its start on, and its masks [L, n] (None: without)."""

    observation: Array
    mask: NDArray[np.bool_] | None


class Recording:
    """An actor that keeps what it saw, episode by episode: of each at most 512 steps, fewer where they are large."""

    takes_turn = True

    def __init__(self, actor: Actor, episodes: int) -> None:
        self._actor, self._share = actor, _BYTES // episodes
        self._kept: list[list[tuple[Array, Any]]] = []
        self._running: dict[int, list[tuple[Array, Any]]] = {}

    def __call__(self, observation: Array, turn: Turn) -> Array:
        """The actor's actions [B, ...] for observations [B, *O]."""
        most = max(min(_MOST, self._share // max(observation[0].nbytes, 1)), 1)
        for row, (slot, start) in enumerate(zip(turn.slot.tolist(), turn.start.tolist(), strict=True)):
            if start or slot not in self._running:
                self._running[slot] = []
                self._kept.append(self._running[slot])
            if len(self._running[slot]) < most:
                self._running[slot].append((observation[row].copy(), None if turn.mask is None else turn.mask[row]))
        return chosen(self._actor, observation, turn)

    def episodes(self) -> list[Stretch]:
        """What was kept of each episode."""
        found = []
        for steps in self._kept:
            seen, masks = zip(*steps, strict=True)
            found.append(Stretch(np.stack(seen), None if masks[0] is None else np.stack(masks)))
        return found


def sequences_of(graph: Graph, episodes: Sequence[Stretch] | None, split: Any, seed: int = 0) -> Feed:
    """LANES * STEPS rows, step after step, of recorded episodes, whose observations `split` makes ports of, or
    synthetic ones."""
    rng = np.random.default_rng(seed)
    drawn = laid(draws(graph, rng), DRAWN_LANES, rng)
    extremes = _lanes(drawn, _extremes(graph, drawn))
    if episodes is None:
        narrow = rng.choice(DRAWN_LANES // 2, LANES - _EXTREME, replace=False)
        return _side_by_side(_lanes(drawn, narrow), extremes)
    return _side_by_side(_recorded(graph, episodes, split, rng), extremes)


def _recorded(graph: Graph, episodes: Sequence[Stretch], split: Any, rng: np.random.Generator) -> Feed:
    lanes = [_lane(episodes, rng, STEPS if lane == 0 else _LONGEST) for lane in range(LANES - _EXTREME)]
    places = [lane[step] for step in range(STEPS) for lane in lanes]
    observation = np.stack([episodes[e].observation[at] for e, at, _ in places])
    mask = None
    if graph.masked and episodes[0].mask is not None:
        mask = np.stack([episodes[e].mask[at] for e, at, _ in places])  # type: ignore[index]
    noise = None
    if graph.stochastic:
        noise = random_noise(graph.head.law, (len(places), graph.head.size), rng)
    return Feed(split(observation), mask, noise, start=np.array([start for _, _, start in places]))


def _lane(episodes: Sequence[Stretch], rng: np.random.Generator, longest: int) -> list[tuple[int, int, bool]]:
    """(episode, step in it, whether it counts as a start) for STEPS steps."""
    found: list[tuple[int, int, bool]] = []
    while len(found) < STEPS:
        if longest == STEPS and not found:
            episode = int(np.argmax([len(one.observation) for one in episodes]))
            begin, length = 0, STEPS
        else:
            episode = int(rng.integers(len(episodes)))
            begin = int(rng.integers(len(episodes[episode].observation))) * int(rng.integers(2))
            length = int(rng.integers(_SHORTEST, _LONGEST + 1))
        end = min(begin + length, len(episodes[episode].observation), begin + STEPS - len(found))
        found += [(episode, at, at == begin) for at in range(begin, end)]
    return found


def _extremes(graph: Graph, drawn: Feed) -> list[int]:
    """Of the lanes drawn widest, and of those drawn second widest, the most telling one: where numbers reach farthest,
    or where choices are near each other."""
    outputs = run_stepwise(graph, drawn, DRAWN_LANES).outputs
    if graph.head.kind == "numbers":
        telling = np.abs(outputs).reshape(STEPS, DRAWN_LANES, -1).max(0).sum(-1)
    else:
        telling = -np.median(margins(graph, outputs).reshape(STEPS, DRAWN_LANES, -1), 0).min(-1)
    quarter = DRAWN_LANES // 4
    return [part * quarter + int(telling[part * quarter : (part + 1) * quarter].argmax()) for part in (2, 3)]


def _lanes(feed: Feed, lanes: Any) -> Feed:
    """Those of the drawn lanes."""
    rows = np.arange(len(feed)).reshape(-1, DRAWN_LANES)[:, np.asarray(lanes)]
    return feed.rows(rows.ravel())


def _side_by_side(first: Feed, second: Feed) -> Feed:
    """The lanes of both."""
    rows = np.concatenate(
        [part.reshape(STEPS, -1) for part in (np.arange(len(first)), len(first) + np.arange(len(second)))], 1
    )
    return joined(first, second).rows(rows.ravel())
