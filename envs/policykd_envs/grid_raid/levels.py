"""Many levels at once, in arrays: what `level.make_level` makes one by one, from the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.generator import advance, below, draw, expand
from policykd_envs.grid_raid.level import DRAWS, LATTICE, SHAPES, distance, mirror

Bools = NDArray[np.bool_]
Cells = NDArray[np.intp]
Slots = NDArray[np.intp] | slice

_COLUMNS = np.arange(rules.CELLS) % rules.SIZE
_SPLITS = np.arange(4, 8)[:, None]  # where the wall between the rooms may stand
_ROWS = np.arange(rules.CELLS) // rules.SIZE
_EDGE = (_ROWS % (rules.SIZE - 1) == 0) | (_COLUMNS % (rules.SIZE - 1) == 0)
_ROOMS = np.where(_EDGE | (_COLUMNS == _SPLITS), rules.WALL, rules.FLOOR).astype(np.uint8)  # [4, 144]
_LEFT, _RIGHT = _COLUMNS < _SPLITS, _COLUMNS > _SPLITS
_APART = np.abs(_COLUMNS - _SPLITS) > 1
_PILLARS = np.zeros((len(LATTICE), len(SHAPES), rules.CELLS), np.bool_)
for _spot, _place in enumerate(LATTICE):
    for _shape, _offsets in enumerate(SHAPES):
        _PILLARS[_spot, _shape, [_place + offset for offset in _offsets]] = True
# three pillars beside each other at a time: [3, 125, 144]
_PILLAR_ROWS = np.stack(
    [
        (row[0][:, None, None] | row[1][:, None] | row[2]).reshape(-1, rules.CELLS)
        for row in _PILLARS.reshape(3, 3, len(SHAPES), rules.CELLS)
    ]
)
_DISTANT = np.array(
    [[distance(cell, other) >= rules.SAFE_DISTANCE for cell in range(rules.CELLS)] for other in range(rules.CELLS)]
)
_MIRROR = np.array([mirror(cell) for cell in range(rules.CELLS)])
_SWAPPED = np.array([rules.UP, rules.LEFT, rules.DOWN, rules.RIGHT])
_ITEMS = 3 + len(LATTICE) + 1  # the first number after walls and exit


@dataclass
class Levels:
    """The starts of K episodes."""

    tiles: NDArray[np.uint8]  # [K, 144]
    figures: Cells  # [5, K]: the raider's cell, the guards' cells, the directions they face

    def __post_init__(self) -> None:
        self.raider = self.figures[0]  # [K]
        self.guards = self.figures[1:3]  # [2, K]
        self.facing = self.figures[3:5]  # [2, K]

    def put(self, slots: Slots, other: Levels, chosen: Slots) -> None:
        """Take over the `chosen` ones of others."""
        self.tiles[slots] = other.tiles[chosen]
        self.figures[:, slots] = other.figures[:, chosen]

    @classmethod
    def empty(cls, count: int) -> Levels:
        """Room for so many."""
        return cls(
            np.full((count, rules.CELLS), rules.WALL, np.uint8), np.zeros((1 + 2 * rules.GUARDS, count), np.intp)
        )


class Supply:
    """The next levels of each of N generators. A level depends on nothing but its generator, so a few are made ahead
    for each, all at once: level k of slot i lies at `DEPTH * i + k % DEPTH`."""

    DEPTH = 8

    def __init__(self, states: NDArray[np.uint32]) -> None:
        self._states = states.copy()
        self._taken, self._made = np.zeros((2, len(states)), np.intp)  # levels so far
        self._levels = Levels.empty(self.DEPTH * len(states))

    def reseed(self, slots: Cells, states: NDArray[np.uint32]) -> None:
        """Start these generators anew."""
        self._states[slots] = states
        self._taken[slots] = self._made[slots] = 0

    def take(self, slots: Cells, into: Levels) -> None:
        """Write the next level of each of the slots to its place in `into`."""
        if (self._taken[slots] == self._made[slots]).any():
            self._make()
        into.put(slots, self._levels, self.DEPTH * slots + self._taken[slots] % self.DEPTH)
        self._taken[slots] += 1

    def _make(self) -> None:
        """Replace every level that is taken."""
        missing = self._taken + self.DEPTH - self._made
        slots = np.repeat(np.arange(len(missing)), missing)
        numbers = self._made[slots] + np.arange(len(slots)) - np.repeat(np.cumsum(missing) - missing, missing)
        made = make_levels(advance(self._states[slots], DRAWS * numbers))
        self._levels.put(self.DEPTH * slots + numbers % self.DEPTH, made, slice(None))
        self._made += missing


class Pool:
    """The same where there are few levels: number k is what a generator of seed k makes first, and each reset draws
    one of the `count` numbers."""

    def __init__(self, states: NDArray[np.uint32], count: int) -> None:
        self._states, self._count = states.copy(), count
        self._levels = make_levels(np.array([expand(number) for number in range(count)], np.uint32))

    def reseed(self, slots: Cells, states: NDArray[np.uint32]) -> None:
        """Start these generators anew."""
        self._states[slots] = states

    def take(self, slots: Cells, into: Levels) -> None:
        """Write the next level of each of the slots to its place in `into`."""
        numbers = below(draw(self._states[slots], 1)[:, 0], self._count)
        self._states[slots] = advance(self._states[slots], np.ones(len(slots)))
        into.put(slots, self._levels, numbers.astype(np.intp))


def make_levels(states: NDArray[np.uint32]) -> Levels:
    """The next level of each generator, from its counter [K]; the counters stay."""
    numbers = draw(states, DRAWS)
    every = np.arange(len(states))
    split = below(numbers[:, 1], 4).astype(np.intp)
    tiles = _ROOMS[split]
    tiles[every, rules.SIZE * (1 + below(numbers[:, 2], 10).astype(np.intp)) + split + 4] = rules.DOOR
    shapes = below(numbers[:, 3 : 3 + len(LATTICE)], len(SHAPES)).astype(np.intp).reshape(-1, 3, 3) @ (25, 5, 1)
    pillars = _PILLAR_ROWS[0, shapes[:, 0]] | _PILLAR_ROWS[1, shapes[:, 1]] | _PILLAR_ROWS[2, shapes[:, 2]]
    tiles[pillars & _APART[split]] = rules.WALL
    exit_row = 1 + below(numbers[:, _ITEMS - 1], 10).astype(np.intp)
    tiles[every, rules.SIZE * exit_row + rules.SIZE - 1] = rules.EXIT_CLOSED

    free = tiles == rules.FLOOR
    across, down = _beats(free, 1), _beats(free, rules.SIZE)
    near, far = _LEFT[split], _RIGHT[split]
    raider = _take(numbers[:, _ITEMS], free, near)
    for place, (tile, room) in enumerate(
        ((rules.KEY, near), (rules.STONE, near), (rules.GEM, near), (rules.GEM, far), (rules.GEM, near | far)), 1
    ):
        tiles[every, _take(numbers[:, _ITEMS + place], free, room)] = tile
    walks = across | down
    first = _take(numbers[:, _ITEMS + 6], free, near & walks & _DISTANT[raider])
    second = _take(numbers[:, _ITEMS + 7], free, far & walks)
    facing = below(numbers[:, _ITEMS + 8 :].T, 4).astype(np.intp)
    guards = np.stack((first, second))
    facing = (facing + ~np.where(facing % 2, across[every, guards], down[every, guards])) % 4
    return _mirrored(Levels(tiles, np.concatenate((raider[None], guards, facing))), below(numbers[:, 0], 2) == 1)


def _take(numbers: NDArray[np.uint32], free: Bools, room: Bools) -> Cells:
    """A free cell [K] of each room [K, 144], in ascending order; it is free no more."""
    counts = np.cumsum(free & room, axis=1, dtype=np.uint8)
    place = below(numbers, counts[:, -1]).astype(np.uint8)
    cells: Cells = np.argmax(counts > place[:, None], axis=1)
    free[np.arange(len(cells)), cells] = False
    return cells


def _beats(free: Bools, step: int) -> Bools:
    """The cells [K, 144] that lie in a line of at least BEAT free ones."""
    count, last = rules.BEAT, rules.CELLS - (rules.BEAT - 1) * step
    whole = np.logical_and.reduce([free[:, part * step : part * step + last] for part in range(count)])
    beats = np.zeros_like(free)
    for part in range(count):
        beats[:, part * step : part * step + last] |= whole
    return beats


def _mirrored(levels: Levels, chosen: Bools) -> Levels:
    """Swap left and right where chosen."""
    levels.tiles[chosen] = levels.tiles[chosen][:, _MIRROR]
    levels.figures[:3, chosen] = _MIRROR[levels.figures[:3, chosen]]
    levels.facing[:, chosen] = _SWAPPED[levels.facing[:, chosen]]
    return levels
