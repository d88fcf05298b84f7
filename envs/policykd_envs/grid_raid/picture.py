"""GridRaid for people: 40 x 40 pixels a cell, drawn with NumPy; pygame only for the window."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd_envs.grid_raid import patterns, rules

CELL = 40
Bools = NDArray[np.bool_]
Colour = tuple[int, int, int]

_AXIS = (np.arange(CELL) + 0.5) / CELL * 2 - 1
_X, _Y = np.meshgrid(_AXIS, _AXIS)  # each cell is the square from -1 to 1, y downwards

_STONEWORK, _JOINT, _GROUND = (88, 90, 108), (66, 68, 84), (26, 27, 38)
_GOLD, _CYAN, _ROCK = (247, 202, 70), (56, 189, 248), (168, 156, 142)


def draw(codes: NDArray[Any] | list[int], turn: int) -> NDArray[np.uint8]:
    """The picture [480, 480, 3] of a board's codes [144] (patterns.py) after so many turns."""
    image = np.concatenate(
        [
            np.concatenate([_sprite(int(code)) for code in codes[start : start + rules.SIZE]], axis=1)
            for start in range(0, rules.CELLS, rules.SIZE)
        ]
    )
    top, left = rules.CELLS // rules.SIZE * CELL - CELL * 5 // 8, CELL // 2
    width = image.shape[1] - CELL
    image[top : top + CELL // 4, left : left + width] = (40, 42, 54)
    full = width * (rules.TURNS - turn) // rules.TURNS
    image[top : top + CELL // 4, left : left + full] = (80, 220, 120)
    return image


@cache
def _sprite(code: int) -> NDArray[np.uint8]:
    """One cell [40, 40, 3]."""
    overlay, tile = divmod(code, rules.N_TILES)
    sprite = np.empty((CELL, CELL, 3), np.uint8)
    sprite[:] = _GROUND
    sprite[(np.abs(_X) > 0.95) | (np.abs(_Y) > 0.95)] = (32, 33, 46)
    _draw_tile(sprite, tile)
    if overlay & patterns.RAIDER_BIT:
        _draw_raider(sprite)
    facings = [direction for direction in range(4) if overlay >> direction & 1]
    if facings:
        _draw_guard(sprite, facings)
    return sprite


def _draw_tile(sprite: NDArray[np.uint8], tile: int) -> None:
    if tile in (rules.WALL, rules.HELD_KEY, rules.HELD_STONE, rules.HELD_GEM):
        _draw_wall(sprite)
    if tile == rules.DOOR:
        sprite[:] = (122, 74, 34)
        sprite[np.abs((_X * 2.5) % 1 - 0.5) > 0.42] = (92, 54, 24)
        sprite[np.maximum(np.abs(_X), np.abs(_Y)) > 0.88] = (70, 42, 20)
        sprite[_disc(0, -0.1, 0.22) | _box(0, 0.18, 0.09, 0.25)] = _GOLD
    elif tile == rules.DOORWAY:
        sprite[:] = (70, 42, 20)
        sprite[_box(0, 0, 0.74, 0.74)] = (40, 30, 30)
    elif tile in (rules.EXIT_CLOSED, rules.EXIT_OPEN):
        is_open = tile == rules.EXIT_OPEN
        sprite[:] = (52, 56, 70)
        sprite[_box(0, 0, 0.72, 0.72)] = (60, 230, 130) if is_open else (16, 60, 40)
        if is_open:
            sprite[_box(0, 0, 0.42, 0.42)] = (225, 255, 235)
        else:
            sprite[_box(0, 0, 0.72, 0.72) & (np.abs((_X * 2) % 1 - 0.5) > 0.36)] = (110, 116, 132)
    elif tile in (rules.GEM, rules.HELD_GEM):
        _draw_gem(sprite, 0.62 if tile == rules.GEM else 0.5)
    elif tile in (rules.KEY, rules.HELD_KEY):
        _draw_key(sprite)
    elif tile in (rules.STONE, rules.HELD_STONE):
        sprite[_disc(0, 0.1, 0.5)] = (104, 96, 86)
        sprite[_disc(-0.04, 0.05, 0.43)] = _ROCK
        sprite[_disc(-0.16, -0.1, 0.14)] = (208, 198, 186)


def _draw_wall(sprite: NDArray[np.uint8]) -> None:
    sprite[:] = _STONEWORK
    row = np.floor((_Y + 1) * 1.5)
    along = (_X + 1) * 0.75 + 0.5 * (row % 2)
    sprite[(((_Y + 1) * 1.5) % 1 < 0.1) | (along % 1 < 0.06)] = _JOINT


def _draw_gem(sprite: NDArray[np.uint8], size: float) -> None:
    inside = np.abs(_X) + np.abs(_Y) < size
    sprite[inside] = _CYAN
    sprite[inside & (_X < 0) & (_Y < 0)] = (186, 230, 253)
    sprite[inside & (_X > 0) & (_Y > 0)] = (14, 116, 178)


def _draw_key(sprite: NDArray[np.uint8]) -> None:
    ring = _disc(-0.35, 0, 0.3) & ~_disc(-0.35, 0, 0.13)
    sprite[ring | _box(0.2, 0, 0.4, 0.08) | _box(0.32, 0.16, 0.07, 0.14) | _box(0.54, 0.18, 0.07, 0.17)] = _GOLD


def _draw_raider(sprite: NDArray[np.uint8]) -> None:
    sprite[_disc(0, 0.42, 0.5) & (_Y < 0.75)] = (124, 58, 237)
    sprite[_disc(0, -0.25, 0.4)] = (250, 214, 178)
    sprite[_disc(0, -0.3, 0.43) & (_Y < -0.32)] = (91, 33, 182)
    sprite[_box(0, -0.3, 0.55, 0.07)] = (91, 33, 182)
    sprite[_disc(-0.15, -0.14, 0.07) | _disc(0.15, -0.14, 0.07)] = (30, 27, 50)


def _draw_guard(sprite: NDArray[np.uint8], facings: list[int]) -> None:
    sprite[_disc(0, 0, 0.66)] = (127, 29, 29)
    sprite[_disc(0, 0, 0.56)] = (220, 38, 38)
    for direction in facings:
        x, y = ((0, -1), (1, 0), (0, 1), (-1, 0))[direction]
        sprite[_disc(0.42 * x - 0.2 * y, 0.42 * y + 0.2 * x, 0.15)] = (255, 255, 255)
        sprite[_disc(0.42 * x + 0.2 * y, 0.42 * y - 0.2 * x, 0.15)] = (255, 255, 255)
        sprite[_disc(0.5 * x - 0.2 * y, 0.5 * y + 0.2 * x, 0.07)] = (20, 20, 20)
        sprite[_disc(0.5 * x + 0.2 * y, 0.5 * y - 0.2 * x, 0.07)] = (20, 20, 20)
        sprite[_disc(0.82 * x, 0.82 * y, 0.1)] = (255, 221, 0)


def _disc(x: float, y: float, radius: float) -> Bools:
    inside: Bools = (_X - x) ** 2 + (_Y - y) ** 2 < radius**2
    return inside


def _box(x: float, y: float, half_width: float, half_height: float) -> Bools:
    inside: Bools = (np.abs(_X - x) < half_width) & (np.abs(_Y - y) < half_height)
    return inside


class Window:
    """A window that shows pictures at a steady pace. ImportError where pygame is missing."""

    def __init__(self, title: str, fps: int) -> None:
        import pygame

        self._pygame: Any = pygame
        self._title, self._fps = title, fps
        self._clock = pygame.time.Clock()
        self._surface: Any = None

    def show(self, image: NDArray[np.uint8]) -> None:
        """Show `image` [H, W, 3], and wait until its time is over."""
        pygame = self._pygame
        if self._surface is None:
            pygame.display.init()
            self._surface = pygame.display.set_mode((image.shape[1], image.shape[0]))
            pygame.display.set_caption(self._title)
        self._surface.blit(pygame.surfarray.make_surface(image.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        self._clock.tick(self._fps)
        pygame.display.flip()

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()
        self._surface = None
