"""The pictures of N games, kept up to date by drawing only what changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policykd_envs.grid_raid import patterns, rules
from policykd_envs.grid_raid.boards import Boards
from policykd_envs.grid_raid.levels import Cells

_STRIP = "V9"  # three pixels beside each other: NumPy copies them as one
_STRIPS = np.ascontiguousarray(patterns.PATTERNS.reshape(-1).view(_STRIP).reshape(patterns.N_CODES, 3).T)  # [3, 384]
_CELLS = np.arange(rules.CELLS)
_DOWN = rules.SIZE * np.arange(3)[:, None]  # strips in a row of pixels: 12
_PLACES = 3 * rules.SIZE * (_CELLS // rules.SIZE) + _CELLS % rules.SIZE  # a cell's first strip within its picture
_FACING_BITS = np.array([1, 2, 4, 8], np.uint8)
_LEFT = rules.TURNS - np.arange(rules.TURNS + 1)
_BAR_PLACES = 3 * (patterns.PIXELS * patterns.BAR_ROW + patterns.BAR_COLUMN + _LEFT // 3) + 1  # the green of a pixel
_BAR_GREENS = (85 * (_LEFT % 3)).astype(np.uint8)


class Canvas:
    """Pictures uint8 [N, 36, 36, 3] of boards; `images` is drawn over in place."""

    def __init__(self, boards: Boards) -> None:
        count = len(boards.base)
        self._boards = boards
        self._figures = np.zeros(count * rules.CELLS, np.uint8)  # guards' facings and raiders, as in `patterns`
        self._drawn: Cells = np.zeros((1 + rules.GUARDS, count), np.intp)  # where figures were drawn last
        self.images = np.zeros((count, patterns.PIXELS, patterns.PIXELS, 3), np.uint8)
        self._flat = self.images.reshape(-1)
        self._strips = self._flat.view(_STRIP)
        self._places = (np.arange(count)[:, None] * (3 * rules.CELLS) + _PLACES).reshape(-1)
        self._starts = np.arange(count) * self.images[0].size

    def codes(self, slots: Cells) -> NDArray[np.intp]:
        """The codes [K, 144] of whole boards."""
        figures = self._figures.reshape(-1, rules.CELLS)[slots].astype(np.intp)
        return self._boards.levels.tiles[slots] + rules.N_TILES * figures

    def draw(self, changed: list[Cells], begun: Cells) -> None:
        """Draw what a turn moved, the `changed` cells of the flat boards, a turn less, and then the whole of those that
        have just `begun`."""
        boards = self._boards
        before = self._drawn
        self._figures[before] = 0
        self._place_figures()
        after = self._drawn
        moved = np.flatnonzero(before[0] != after[0])
        cells = np.concatenate(
            [before[0, moved], after[0, moved], before[1:].reshape(-1), after[1:].reshape(-1), *changed]
        )
        codes = boards.tiles[cells] + rules.N_TILES * self._figures[cells].astype(np.intp)
        np.put(self._strips, self._places[cells] + _DOWN, _STRIPS.take(codes, axis=1))
        bars = self._starts + _BAR_PLACES[boards.turn]
        self._flat[bars] = _BAR_GREENS[boards.turn]
        if begun.size:
            whole = _STRIPS.take(self.codes(begun).reshape(-1, rules.SIZE, rules.SIZE), axis=1)
            self._strips.reshape(-1, rules.SIZE, 3, rules.SIZE)[begun] = whole.transpose(1, 2, 0, 3)
            end = patterns.BAR_COLUMN + patterns.BAR_PIXELS
            self.images[begun, patterns.BAR_ROW, patterns.BAR_COLUMN : end] = patterns.BARS[0]

    def _place_figures(self) -> None:
        boards, levels = self._boards, self._boards.levels
        raiders, guards = boards.base + levels.raider, boards.base + levels.guards
        self._figures[guards] = _FACING_BITS[levels.facing] * boards.standing  # no two on one cell: each in its room
        self._figures[raiders] |= patterns.RAIDER_BIT
        self._drawn = np.concatenate((raiders[None], guards))
