"""The pictures of N games, kept up to date by drawing only what changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policykd_envs.grid_raid import patterns, rules
from policykd_envs.grid_raid.boards import Boards
from policykd_envs.grid_raid.levels import Bools, Cells

_STRIP = "V9"  # three pixels beside each other: NumPy copies them as one
_STRIPS = patterns.PATTERNS.reshape(-1).view(_STRIP).reshape(patterns.N_CODES, 3)
_CELLS = np.arange(rules.CELLS)
_DOWN = rules.SIZE * np.arange(3)  # strips in a row of pixels: 12
_PLACES = 3 * rules.SIZE * (_CELLS // rules.SIZE) + _CELLS % rules.SIZE  # a cell's first strip within its picture
_LEFT = rules.TURNS - np.arange(rules.TURNS + 1)
_BAR_PLACES = 3 * (patterns.PIXELS * patterns.BAR_ROW + patterns.BAR_COLUMN + _LEFT // 3) + 1  # the green of a pixel
_BAR_GREENS = (85 * (_LEFT % 3)).astype(np.uint8)


class Canvas:
    """Pictures uint8 [N, 36, 36, 3] of boards; `images` is drawn over in place."""

    def __init__(self, boards: Boards) -> None:
        count = len(boards.base)
        self._boards = boards
        self._figures = np.zeros(count * rules.CELLS, np.uint8)  # guards' facings and raiders, as in `patterns`
        self._drawn: Cells = np.zeros((0, count), np.intp)  # where figures were drawn last
        self.images = np.zeros((count, patterns.PIXELS, patterns.PIXELS, 3), np.uint8)
        self._flat = self.images.reshape(-1)
        self._strips = self._flat.view(_STRIP)
        self._places = (np.arange(count)[:, None] * (3 * rules.CELLS) + _PLACES).reshape(-1)
        self._starts = np.arange(count) * self.images[0].size

    def codes(self, slots: Cells) -> NDArray[np.intp]:
        """The codes [K, 144] of whole boards."""
        figures = self._figures.reshape(-1, rules.CELLS)[slots].astype(np.intp)
        return self._boards.levels.tiles[slots] + rules.N_TILES * figures

    def redraw(self, slots: Cells) -> None:
        """Draw these boards anew, which have just begun."""
        self._place_figures()
        size = rules.SIZE
        cells = patterns.PATTERNS[self.codes(slots)].reshape(-1, size, size, 3, 3, 3)
        self.images[slots] = cells.transpose(0, 1, 3, 2, 4, 5).reshape(-1, patterns.PIXELS, patterns.PIXELS, 3)
        end = patterns.BAR_COLUMN + patterns.BAR_PIXELS
        self.images[slots, patterns.BAR_ROW, patterns.BAR_COLUMN : end] = patterns.BARS[0]

    def update(self, changed: list[Cells], live: Bools) -> None:
        """Draw what a turn moved, the `changed` cells of the flat boards, and a turn less for the `live` games."""
        before = self._drawn
        self._place_figures()
        cells = np.concatenate([before.reshape(-1), self._drawn.reshape(-1), *changed])
        codes = self._boards.tiles[cells] + rules.N_TILES * self._figures[cells].astype(np.intp)
        self._strips[self._places[cells][:, None] + _DOWN] = _STRIPS[codes]
        turn = self._boards.turn
        bars = self._starts + _BAR_PLACES[turn]
        self._flat[bars] = np.where(live, _BAR_GREENS[turn], self._flat[bars])

    def _place_figures(self) -> None:
        boards, levels = self._boards, self._boards.levels
        self._figures[self._drawn] = 0
        raiders = boards.base + levels.raider
        guards = (boards.base2 + levels.guards).T
        bits = (boards.standing << levels.facing).T
        self._figures[raiders] = patterns.RAIDER_BIT
        for cells, facing in zip(guards, bits, strict=True):
            self._figures[cells] |= facing.astype(np.uint8)
        self._drawn = np.concatenate((raiders[None], guards))
