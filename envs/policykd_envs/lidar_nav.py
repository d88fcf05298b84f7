"""LidarNav, for a single robot: a differential drive that finds its goal among round obstacles, by 16 lidar beams."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from policykd_envs import lidar_world as world
from policykd_envs.lidar_picture import Painter
from policykd_envs.lidar_world import Floats, Layout, draw_layout

Observation = dict[str, NDArray[np.float32]]


class Robot(NamedTuple):
    """Where it is, where it looks (counter-clockwise from x) and how fast each wheel rolls."""

    x: float
    y: float
    heading: float
    left: float
    right: float


def moved(robot: Robot, left: float, right: float) -> Robot:
    """The robot one step later, its wheels commanded to these speeds in m/s.

    Wheels follow with first-order lag. The path is that of a differential drive: Siegwart and Nourbakhsh, Introduction
    to Autonomous Mobile Robots (2004), section 3.2 (forward kinematics) and section 5.2.4 (its steps, along the chord
    that halves the turn).
    """
    left = robot.left + world.FOLLOWS * (left - robot.left)
    right = robot.right + world.FOLLOWS * (right - robot.right)
    forward, turn = (right + left) / 2 * world.DT, (right - left) / world.TRACK * world.DT
    middle = robot.heading + turn / 2  # NumPy's sine and cosine here and below: the vector version's, to the last bit
    x, y = robot.x + forward * float(np.cos(middle)), robot.y + forward * float(np.sin(middle))
    return Robot(x, y, robot.heading + turn, left, right)


def pushed_out(robot: Robot, layout: Layout) -> tuple[Robot, bool]:
    """The robot, moved out of what it ran into by the shortest way, and whether it touched anything.

    Streets are twice as wide as the robot, and half a street lies along every wall (MARGIN >= 2 * ROBOT): it is in one
    obstacle at most, and where a wall holds it, in none.
    """
    dx, dy = robot.x - layout.centres[:, 0], robot.y - layout.centres[:, 1]
    away = np.sqrt(dx * dx + dy * dy)
    inside = away < layout.radii + world.ROBOT
    lacking = np.where(inside, (layout.radii + world.ROBOT + world.SKIN) / np.maximum(away, world.SKIN) - 1, 0.0)
    x, y = robot.x + float((lacking * dx).sum()), robot.y + float((lacking * dy).sum())
    limit = world.HALF - world.ROBOT
    walled = max(abs(x), abs(y)) > limit
    x, y = min(max(x, -limit), limit), min(max(y, -limit), limit)
    return robot._replace(x=x, y=y), walled or bool(inside.any())


def distance_to_goal(robot: Robot, layout: Layout) -> float:
    """In metres, from the robot's centre."""
    dx, dy = float(layout.goal[0]) - robot.x, float(layout.goal[1]) - robot.y
    return math.sqrt(dx * dx + dy * dy)


def beams(robot: Robot, layout: Layout) -> Floats:
    """How far each beam reaches [16], in metres, at most RANGE: the first wall or circle that it meets."""
    cos, sin = np.cos(robot.heading), np.sin(robot.heading)
    ahead, aside = _in_front(layout.centres[:, 0] - robot.x, layout.centres[:, 1] - robot.y, cos, sin)
    along = ahead[:, None] * world.COS + aside[:, None] * world.SIN  # [8, 16] of the centre's foot on the beam
    inside = along * along - (ahead * ahead + aside * aside - layout.radii * layout.radii)[:, None]
    hit = (inside >= 0) & (along > 0)
    circles = np.where(hit, along - np.sqrt(np.maximum(inside, 0)), np.inf).min(0)
    x, y = cos * world.COS - sin * world.SIN, sin * world.COS + cos * world.SIN
    to_x = np.where(x > 0, world.HALF - robot.x, world.HALF + robot.x) / np.maximum(np.abs(x), 1e-12)
    to_y = np.where(y > 0, world.HALF - robot.y, world.HALF + robot.y) / np.maximum(np.abs(y), 1e-12)
    reach: Floats = np.clip(np.minimum(np.minimum(to_x, to_y), circles), 0, world.RANGE)
    return reach


def observed(robot: Robot, layout: Layout) -> Observation:
    """What the robot sees, and under `privileged` what only a teacher should know."""
    cos, sin = np.cos(robot.heading), np.sin(robot.heading)
    ahead, aside = _in_front(layout.goal[0] - robot.x, layout.goal[1] - robot.y, cos, sin)
    distance = math.sqrt(ahead * ahead + aside * aside)
    unit = max(distance, 1e-9)
    speed, turning = (robot.right + robot.left) / 2, (robot.right - robot.left) / world.TRACK
    pose = (robot.x / world.HALF, robot.y / world.HALF, cos, sin, ahead / world.HALF, aside / world.HALF)
    return {
        "goal": np.array([distance / world.DIAGONAL, ahead / unit, aside / unit], np.float32),
        "lidar": (beams(robot, layout) / world.RANGE).astype(np.float32),
        "privileged": np.concatenate([pose, _obstacles(robot, layout, cos, sin)]).astype(np.float32),
        "velocity": np.array([speed / world.FASTEST, turning / world.FASTEST_TURN], np.float32),
    }


class LidarNavEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """`LidarNav-v0`: spaces, rewards and ends in docs/environments.md."""

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = world.observation_space(), world.action_space()
        self.layout: Layout | None = None
        self.robot = Robot(0.0, 0.0, 0.0, 0.0, 0.0)
        self._painter: Painter | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new map, with the robot at rest at its start. There are no options."""
        super().reset(seed=seed)
        self.layout = draw_layout(self.np_random)
        self.robot = Robot(float(self.layout.start[0]), float(self.layout.start[1]), self.layout.heading, 0.0, 0.0)
        if self.render_mode == "human":
            self.render()
        return observed(self.robot, self.layout), {"is_success": False, "touched": False}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Commands the wheels for DT; actions beyond [-1, 1] are clipped. ResetNeeded before the first reset."""
        if self.layout is None:
            raise ResetNeeded("step before reset: call reset first")
        left, right = (min(max(float(one), -1.0), 1.0) * world.FASTEST for one in action)
        before = distance_to_goal(self.robot, self.layout)
        self.robot, touched = pushed_out(moved(self.robot, left, right), self.layout)
        distance = distance_to_goal(self.robot, self.layout)
        reached = distance < world.GOAL
        reward = world.PROGRESS * (before - distance) - world.STEP_COST + world.BONUS * reached
        reward -= world.PENALTY * touched
        if self.render_mode == "human":
            self.render()
        info = {"is_success": reached, "touched": touched}
        return observed(self.robot, self.layout), reward, reached, False, info

    def render(self) -> Any:
        """A frame [400, 400, 3] of uint8, or the window; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn("render without a render mode: make the environment with render_mode='rgb_array'")
            return None
        if self.layout is None:
            raise ResetNeeded("render before reset: call reset first")
        if self._painter is None:
            self._painter = Painter(self.render_mode, self.metadata["render_fps"])
        robot = self.robot
        return self._painter.paint(self.layout, (robot.x, robot.y, robot.heading), beams(robot, self.layout))

    def close(self) -> None:
        """Closes the window."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None


def _in_front(dx: Any, dy: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
    """A difference in the world, as the robot sees it: ahead and to its left."""
    return cos * dx + sin * dy, cos * dy - sin * dx


def _obstacles(robot: Robot, layout: Layout, cos: Any, sin: Any) -> Floats:
    """(cosine and sine of the bearing, nearness) of each obstacle, the nearest edge first [24]."""
    ahead, aside = _in_front(layout.centres[:, 0] - robot.x, layout.centres[:, 1] - robot.y, cos, sin)
    away = np.sqrt(ahead * ahead + aside * aside)
    edge = away - layout.radii
    near = world.ROBOT / np.maximum(edge, world.ROBOT)
    table: Floats = np.stack([ahead / away, aside / away, near], axis=1)[np.argsort(edge, kind="stable")]
    return table.reshape(-1)
