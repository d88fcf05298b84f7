"""LidarNav seen from above, with pygame, which is imported when the first picture is painted."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled

from policykd_envs.lidar_world import BEAMS, GOAL, HALF, ROBOT, Floats, Layout

SIDE = 400  # pixels
_FLOOR, _WALL, _OBSTACLE, _GOAL = (250, 250, 247), (70, 74, 84), (128, 134, 148), (88, 168, 104)
_BEAM, _END, _ROBOT, _NOSE = (244, 190, 168), (214, 92, 60), (48, 98, 168), (250, 250, 247)
_WALL_WIDTH = 4  # pixels


class Painter:
    """Paints frames, or keeps a window that shows them at `fps`."""

    def __init__(self, render_mode: str, fps: int) -> None:
        try:
            import pygame
        except ImportError as error:
            raise DependencyNotInstalled("pictures need pygame: pip install 'policykd[video]'") from error
        self._pygame: Any = pygame
        self._fps = fps
        self._window: Any = None
        self._clock: Any = None
        if render_mode == "human":
            pygame.display.init()
            self._window = pygame.display.set_mode((SIDE, SIDE))
            self._clock = pygame.time.Clock()
        self._canvas = pygame.Surface((SIDE, SIDE))

    def paint(self, layout: Layout, pose: tuple[float, float, float], reach: Floats) -> Any:
        """Goal, beams [16], obstacles and the robot at (x, y, heading): [400, 400, 3] of uint8, or None in a window."""
        draw, canvas = self._pygame.draw, self._canvas
        canvas.fill(_FLOOR)
        x, y, heading = pose
        draw.circle(canvas, _GOAL, _pixel(*layout.goal), GOAL * _SCALE)
        ends = [
            _pixel(x + d * np.cos(heading + b), y + d * np.sin(heading + b)) for d, b in zip(reach, BEAMS, strict=True)
        ]
        for end in ends:
            draw.aaline(canvas, _BEAM, _pixel(x, y), end)
        for centre, radius in zip(layout.centres, layout.radii, strict=True):
            draw.circle(canvas, _OBSTACLE, _pixel(*centre), float(radius) * _SCALE)
        for end in ends:
            draw.circle(canvas, _END, end, 2)
        draw.circle(canvas, _ROBOT, _pixel(x, y), ROBOT * _SCALE)
        nose = _pixel(x + ROBOT * np.cos(heading), y + ROBOT * np.sin(heading))
        draw.line(canvas, _NOSE, _pixel(x, y), nose, 3)
        draw.rect(canvas, _WALL, (0, 0, SIDE, SIDE), _WALL_WIDTH)
        if self._window is None:
            return np.transpose(self._pygame.surfarray.array3d(canvas), (1, 0, 2))
        self._window.blit(canvas, (0, 0))
        self._pygame.event.pump()
        self._pygame.display.flip()
        self._clock.tick(self._fps)
        return None

    def close(self) -> None:
        """Closes the window."""
        if self._window is not None:
            self._pygame.display.quit()
            self._window = None


_SCALE = (SIDE - 2 * _WALL_WIDTH) / (2 * HALF)


def _pixel(x: Any, y: Any) -> tuple[float, float]:
    """Where a point lies in the picture; y points up in the world."""
    return float(SIDE / 2 + _SCALE * x), float(SIDE / 2 - _SCALE * y)
