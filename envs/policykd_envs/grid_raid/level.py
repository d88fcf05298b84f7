"""One level from a generator, cell by cell: the reference that `levels` repeats in arrays.

Two rooms side by side, a wall with one door between them. The raider, the key, the stone and a gem are in the near
room, a gem and the exit in the far one, a third gem anywhere. Pillars touch neither one another, nor the walls, nor the
cells beside the door, so each room hangs together. A guard walks up and down at least four cells of one room, so that
each of them can be crossed. Every level can be solved, by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.generator import Generator

LATTICE = tuple(rules.SIZE * row + column for row in (2, 5, 8) for column in (2, 5, 8))
SHAPES = ((), (0,), (0, 1), (0, rules.SIZE), (0, 1, rules.SIZE))  # a pillar's cells, from its place in the lattice
DRAWS = 3 + len(LATTICE) + 1 + 8 + rules.GUARDS  # numbers that a level takes


@dataclass
class Level:
    """The start of an episode."""

    tiles: list[int]  # [144]
    raider: int
    guards: list[int]  # [2] cells
    facing: list[int]  # [2] directions


def make_level(generator: Generator) -> Level:
    """The next level; takes DRAWS numbers from the generator, whatever they are."""
    mirrored = generator.below(2) == 1
    column = 4 + generator.below(4)
    door = rules.SIZE * (1 + generator.below(10)) + column
    tiles = _rooms(column)
    tiles[door] = rules.DOOR
    for place in LATTICE:
        for offset in SHAPES[generator.below(len(SHAPES))]:
            if abs((place + offset) % rules.SIZE - column) > 1:
                tiles[place + offset] = rules.WALL
    tiles[rules.SIZE * (1 + generator.below(10)) + rules.SIZE - 1] = rules.EXIT_CLOSED

    free = [cell for cell in range(rules.CELLS) if tiles[cell] == rules.FLOOR]
    near = [cell for cell in free if cell % rules.SIZE < column]
    far = [cell for cell in free if cell % rules.SIZE > column]
    beats = {step: {cell for cell in free if _run(tiles, cell, step) >= rules.BEAT} for step in (1, rules.SIZE)}
    raider = _take(generator, near, near, far)
    for tile, room in ((rules.KEY, near), (rules.STONE, near), (rules.GEM, near), (rules.GEM, far)):
        tiles[_take(generator, room, near, far)] = tile
    tiles[_take(generator, sorted(near + far), near, far)] = rules.GEM
    walks = beats[1] | beats[rules.SIZE]
    distant = [cell for cell in near if cell in walks and distance(cell, raider) >= rules.SAFE_DISTANCE]
    guards = [_take(generator, distant), _take(generator, [cell for cell in far if cell in walks])]
    facing = [generator.below(4) for _ in guards]
    for guard, cell in enumerate(guards):
        if cell not in beats[abs(rules.STEPS[facing[guard]])]:
            facing[guard] = (facing[guard] + 1) % 4
    level = Level(tiles, raider, guards, facing)
    return _mirrored(level) if mirrored else level


def distance(cell: int, other: int) -> int:
    """Steps from one cell to another where nothing is in the way."""
    return abs(cell // rules.SIZE - other // rules.SIZE) + abs(cell % rules.SIZE - other % rules.SIZE)


def _run(tiles: list[int], cell: int, step: int) -> int:
    """How many cells of floor lie in one line with a cell, itself included."""
    count = 1
    for way in (step, -step):
        ahead = cell + way
        while tiles[ahead] == rules.FLOOR:
            ahead, count = ahead + way, count + 1
    return count


def mirror(cell: int) -> int:
    """The cell on the other side, in the same row."""
    return cell + rules.SIZE - 1 - 2 * (cell % rules.SIZE)


def _rooms(column: int) -> list[int]:
    """Floor [144] with walls around it and down one column."""
    edge = (0, rules.SIZE - 1)
    return [
        rules.WALL if row in edge or place in (*edge, column) else rules.FLOOR
        for row in range(rules.SIZE)
        for place in range(rules.SIZE)
    ]


def _take(generator: Generator, choices: list[int], *rooms: list[int]) -> int:
    """One of the cells, in ascending order; it is free no more."""
    cell = choices[generator.below(len(choices))]
    for room in rooms:
        if cell in room:
            room.remove(cell)
    return cell


def _mirrored(level: Level) -> Level:
    swapped = {rules.LEFT: rules.RIGHT, rules.RIGHT: rules.LEFT}
    return Level(
        [level.tiles[mirror(cell)] for cell in range(rules.CELLS)],
        mirror(level.raider),
        [mirror(cell) for cell in level.guards],
        [swapped.get(direction, direction) for direction in level.facing],
    )
