"""GridRaid's rules as numbers: the board, its tiles, actions and rewards. Everything is an integer.

A cell is `12 * row + column`, row 0 at the top. docs/gridraid.md says the same in words.
"""

from __future__ import annotations

SIZE = 12
CELLS = SIZE * SIZE
TURNS = 96  # an episode is truncated after so many
GEMS = 3
GUARDS = 2
SAFE_DISTANCE = 4  # steps between the raider and the guard of its own room at the start, at least
BEAT = 4  # cells that a guard walks up and down, at least: then every one of them can be crossed behind its back

FLOOR, WALL, DOOR, DOORWAY, EXIT_CLOSED, EXIT_OPEN, GEM, KEY, STONE, HELD_KEY, HELD_STONE, HELD_GEM = range(12)
N_TILES = 12
WALKABLE = frozenset({FLOOR, DOORWAY, EXIT_OPEN, GEM, KEY, STONE})  # for the raider
PASSABLE = frozenset({FLOOR, GEM, KEY, STONE})  # for guards and thrown stones

HELD_KEY_CELL = 1  # what the raider holds is shown in the top wall
HELD_STONE_CELL = 2
HELD_GEM_CELL = 4  # and the next two

STEPS = (-SIZE, 1, SIZE, -1)  # up, right, down, left
UP, RIGHT, DOWN, LEFT = range(4)

WAIT = 0
WALK, USE_KEY, THROW = range(3)  # tools: action = 1 + 4 * tool + direction
N_ACTIONS = 13
BRANCHES = (5, 3)  # of GridRaidMulti: stay or a direction; a tool

UNIT = 1 / 64  # rewards are multiples of it, so that they are exact in float32
TURN_REWARD = -1
FORBIDDEN_REWARD = -4
GEM_REWARD = 64
KEY_REWARD = 32
DOOR_REWARD = 32
EXIT_REWARD = 128
CAUGHT_REWARD = -64


def pair_action(direction: int, tool: int) -> int:
    """The action of GridRaid for a pair of GridRaidMulti: direction 0 stays, 1 to 4 are up, right, down, left."""
    return WAIT if direction == 0 else 4 * tool + direction
