"""How GridRaid looks to a policy: 3 x 3 pixels for a cell, and the turns left in the bottom wall.

A cell's code is `tile + 12 * (guards' facings as 4 bits + 16 * raider)`. Guards stand on a cell's cross and leave the
four corners of what is there, the raider leaves the upper two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd_envs.grid_raid import rules

PIXELS = 3 * rules.SIZE
RAIDER_BIT = 16
N_CODES = rules.N_TILES * 2 * RAIDER_BIT

_COLOURS = {  # corners and edges, middle
    rules.FLOOR: ((16, 16, 24), (16, 16, 24)),
    rules.WALL: ((96, 96, 112), (96, 96, 112)),
    rules.DOOR: ((160, 88, 24), (255, 216, 0)),
    rules.DOORWAY: ((80, 44, 12), (16, 16, 24)),
    rules.EXIT_CLOSED: ((0, 80, 32), (96, 96, 112)),
    rules.EXIT_OPEN: ((0, 255, 96), (255, 255, 255)),
    rules.GEM: ((0, 176, 255), (224, 255, 255)),
    rules.KEY: ((255, 216, 0), (96, 64, 0)),
    rules.STONE: ((176, 160, 144), (80, 72, 64)),
    rules.HELD_KEY: ((96, 96, 112), (255, 216, 0)),
    rules.HELD_STONE: ((96, 96, 112), (240, 232, 224)),
    rules.HELD_GEM: ((96, 96, 112), (0, 176, 255)),
}
_RAIDER, _RAIDER_MIDDLE = (255, 255, 255), (96, 0, 255)
_GUARD, _GUARD_EDGE, _GUARD_EYE = (255, 0, 0), (128, 0, 0), (255, 255, 0)
_EDGES = ((0, 1), (1, 2), (2, 1), (1, 0))  # up, right, down, left within a cell

BAR_ROW, BAR_COLUMN = PIXELS - 2, 2  # pixels of the turns left: 32, three turns each
BAR_PIXELS = rules.TURNS // 3


def _pattern(tile: int, facings: int, raider: bool) -> NDArray[np.uint8]:
    pixels = np.empty((3, 3, 3), np.uint8)
    pixels[:], pixels[1, 1] = _COLOURS[tile]
    if raider:
        pixels[1:], pixels[0, 1], pixels[1, 1] = _RAIDER, _RAIDER, _RAIDER_MIDDLE
    if facings:
        pixels[1, 1] = _GUARD
        for direction, edge in enumerate(_EDGES):
            pixels[edge] = _GUARD_EYE if facings >> direction & 1 else _GUARD_EDGE
    return pixels


def _all_patterns() -> NDArray[np.uint8]:
    codes = range(N_CODES)
    overlays = ((code % rules.N_TILES, code // rules.N_TILES) for code in codes)
    return np.stack([_pattern(tile, over % RAIDER_BIT, over >= RAIDER_BIT) for tile, over in overlays])


def _all_bars() -> NDArray[np.uint8]:
    left = rules.TURNS - np.arange(rules.TURNS + 1)[:, None] - 3 * np.arange(BAR_PIXELS)
    bars = np.zeros((rules.TURNS + 1, BAR_PIXELS, 3), np.uint8)
    bars[:, :, 1] = 85 * left.clip(0, 3)
    return bars


PATTERNS = _all_patterns()  # [384, 3, 3, 3]: code, row, column, colour
BARS = _all_bars()  # [97, 32, 3]: turns played, pixel, colour


def paint(codes: NDArray[Any] | list[int], turn: int) -> NDArray[np.uint8]:
    """The picture [36, 36, 3] of a board's codes [144] after so many turns."""
    cells = PATTERNS[codes].reshape(rules.SIZE, rules.SIZE, 3, 3, 3)
    image = cells.transpose(0, 2, 1, 3, 4).reshape(PIXELS, PIXELS, 3)
    image[BAR_ROW, BAR_COLUMN : BAR_COLUMN + BAR_PIXELS] = BARS[turn]
    return image
