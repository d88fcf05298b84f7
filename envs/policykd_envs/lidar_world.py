"""LidarNav's world: its measures, its spaces, and how a map is drawn. Lengths in m, times in s, angles in rad.

The arena is a square from -HALF to HALF, cut into CELLS x CELLS cells. Ten cells are drawn: one for the start, one for
the goal, one for each obstacle. An obstacle keeps MARGIN from the border of its cell, so every line between two cells
is the middle of a street of width 2 * MARGIN, wider than the robot: whatever is drawn, start and goal are connected.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HALF, CELLS, OBSTACLES, RAYS = 4.0, 4, 8, 16
CELL = 2 * HALF / CELLS
MARGIN = 0.4  # between an obstacle and the border of its cell
SMALLEST, LARGEST = 0.25, 0.5  # radii of obstacles
PLACES = 0.45  # start and goal lie this far from the middle of their cell at most, in x and in y
ROBOT, GOAL = 0.2, 0.3  # radii: of the robot, and within which its centre is at the goal
SKIN = 1e-6  # how far off the robot comes to stand from an obstacle that it ran into
RANGE = 4.0  # of the lidar

DT = 0.1
FASTEST = 0.6  # of a wheel, m/s
TRACK = 0.4  # between the wheels
LAG = 0.2  # time constant with which a wheel follows its command
FOLLOWS = 1 - math.exp(-DT / LAG)  # the share of a difference made up in one step
FASTEST_TURN = 2 * FASTEST / TRACK

PROGRESS, STEP_COST = 1.0, 0.01  # reward: for a metre, less for a step
BONUS, PENALTY = 5.0, 0.2  # for the goal, less for a step that touches something
MAX_STEPS = 200

DIAGONAL = 2 * math.sqrt(2) * HALF
BEAMS = np.arange(RAYS) * (2 * np.pi / RAYS)  # from straight ahead, counter-clockwise
COS, SIN = np.cos(BEAMS), np.sin(BEAMS)
_LOW, _HIGH = SMALLEST, LARGEST - SMALLEST
_CENTRES = (np.arange(CELLS) + 0.5) * CELL - HALF
_GRID = np.stack(np.meshgrid(_CENTRES, _CENTRES), axis=-1).reshape(-1, 2)  # [16, 2] middles of the cells


class Layout(NamedTuple):
    """A map: start [2], heading, goal [2], obstacles' centres [8, 2] and radii [8]."""

    start: Floats
    heading: float
    goal: Floats
    centres: Floats
    radii: Floats


def draw_layout(generator: np.random.Generator) -> Layout:
    """A map in which the goal can be reached: one permutation of the cells and 29 uniform numbers."""
    middles = _GRID[generator.permutation(CELLS * CELLS)[: OBSTACLES + 2]]
    numbers = generator.random(3 * OBSTACLES + 5)
    offsets = 2 * numbers[: 2 * OBSTACLES + 4].reshape(-1, 2) - 1
    radii = _LOW + _HIGH * numbers[2 * OBSTACLES + 4 : -1]
    room = np.full((OBSTACLES + 2, 1), PLACES)
    room[2:, 0] = CELL / 2 - MARGIN - radii
    places = middles + room * offsets
    return Layout(places[0], float((2 * numbers[-1] - 1) * np.pi), places[1], places[2:], radii)


def observation_space() -> Any:
    """See docs/environments.md; every entry is float32."""
    known = [1.0] * 4 + [3.0] * 2 + [1.0] * 3 * OBSTACLES
    least = [-1.0] * 4 + [-3.0] * 2 + [-1.0, -1.0, 0.0] * OBSTACLES
    return spaces.Dict(
        {
            "lidar": spaces.Box(0.0, 1.0, (RAYS,), np.float32),
            "goal": spaces.Box(np.array([0, -1, -1], np.float32), np.array([1, 1, 1], np.float32)),
            "velocity": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "privileged": spaces.Box(np.array(least, np.float32), np.array(known, np.float32)),
        }
    )


def action_space() -> Any:
    """Commands of the left and the right wheel, as shares of their highest speed."""
    return spaces.Box(-1.0, 1.0, (2,), np.float32)
