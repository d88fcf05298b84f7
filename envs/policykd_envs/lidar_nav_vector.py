"""LidarNav for N robots in array operations; the formulas are those of `lidar_nav`, in the same order.

The last axis of every array is the robots', so that each operation runs along memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd_envs import lidar_world as world
from policykd_envs.batch import Batch, BatchEnv, Bools, Floats
from policykd_envs.lidar_nav import LidarNavEnv, Robot
from policykd_envs.lidar_world import Layout, draw_layout

Observation = dict[str, NDArray[np.float32]]


class LidarNavVectorEnv(BatchEnv):
    """N `LidarNav-v0`."""

    metadata: dict[str, Any] = {**BatchEnv.metadata, "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int = world.MAX_STEPS, render_mode: str | None = None
    ) -> None:
        batch = Batch(num_envs, max_episode_steps, render_mode)
        super().__init__(batch, world.observation_space(), world.action_space())
        self._allocate()

    def _allocate(self) -> None:
        n = self.num_envs
        self.robots = np.zeros((5, n))  # x, y, heading, speeds of the left and the right wheel
        self.goals, self.centres = np.zeros((2, n)), np.zeros((2, world.OBSTACLES, n))
        self.radii = np.zeros((world.OBSTACLES, n))
        self._reached, self._touched = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self._along = np.empty((world.OBSTACLES, world.RAYS, n))
        self._inside, self._hit = np.empty_like(self._along), np.empty(self._along.shape, np.bool_)

    def _start(self, slot: int, generator: np.random.Generator, options: dict[str, Any] | None) -> None:
        layout = draw_layout(generator)
        self.robots[:2, slot], self.robots[2, slot], self.robots[3:, slot] = layout.start, layout.heading, 0.0
        self.goals[:, slot], self.centres[:, :, slot], self.radii[:, slot] = layout.goal, layout.centres.T, layout.radii
        self._reached[slot] = self._touched[slot] = False

    def _advance(self, actions: Any) -> tuple[Floats, Bools]:
        commands = np.clip(np.asarray(actions, np.float64).reshape(self.num_envs, 2).T, -1.0, 1.0) * world.FASTEST
        before = self._distance()
        x, y, heading, left, right = self.robots
        left = left + world.FOLLOWS * (commands[0] - left)
        right = right + world.FOLLOWS * (commands[1] - right)
        forward, turn = (right + left) / 2 * world.DT, (right - left) / world.TRACK * world.DT
        middle = heading + turn / 2
        x, y, self._touched = self._pushed_out(x + forward * np.cos(middle), y + forward * np.sin(middle))
        self.robots = np.stack([x, y, heading + turn, left, right])
        distance = self._distance()
        self._reached = distance < world.GOAL
        reward = world.PROGRESS * (before - distance) - world.STEP_COST + world.BONUS * self._reached
        return reward - world.PENALTY * self._touched, self._reached.copy()

    def _distance(self) -> Floats:
        dx, dy = self.goals - self.robots[:2]
        distance: Floats = np.sqrt(dx * dx + dy * dy)
        return distance

    def _pushed_out(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Bools]:
        """See `lidar_nav.pushed_out`."""
        dx, dy = x - self.centres[0], y - self.centres[1]
        away = np.sqrt(dx * dx + dy * dy)
        inside = away < self.radii + world.ROBOT
        lacking = np.where(inside, (self.radii + world.ROBOT + world.SKIN) / np.maximum(away, world.SKIN) - 1, 0.0)
        x, y = x + (lacking * dx).sum(0), y + (lacking * dy).sum(0)
        limit = world.HALF - world.ROBOT
        walled = np.maximum(np.abs(x), np.abs(y)) > limit
        touched: Bools = walled | inside.any(0)
        return np.clip(x, -limit, limit), np.clip(y, -limit, limit), touched

    def _observe(self) -> Observation:
        x, y, heading, left, right = self.robots
        cos, sin = np.cos(heading), np.sin(heading)
        dx, dy = self.goals[0] - x, self.goals[1] - y
        ahead, aside = cos * dx + sin * dy, cos * dy - sin * dx
        distance = np.sqrt(ahead * ahead + aside * aside)
        unit = np.maximum(distance, 1e-9)
        dx, dy = self.centres[0] - x, self.centres[1] - y
        forward, sideways = cos * dx + sin * dy, cos * dy - sin * dx  # [8, N]
        squared = forward * forward + sideways * sideways
        privileged = np.empty((6 + 3 * world.OBSTACLES, self.num_envs))
        privileged[:6] = x / world.HALF, y / world.HALF, cos, sin, ahead / world.HALF, aside / world.HALF
        away = np.sqrt(squared)
        edge = away - self.radii
        order, near = np.argsort(edge, axis=0, kind="stable"), world.ROBOT / np.maximum(edge, world.ROBOT)
        for column, values in enumerate((forward / away, sideways / away, near)):
            privileged[6 + column :: 3] = np.take_along_axis(values, order, 0)
        speed, turning = (right + left) / 2, (right - left) / world.TRACK
        circles = self._circles(forward, sideways, squared - self.radii * self.radii)
        return {
            "goal": _rows(np.stack([distance / world.DIAGONAL, ahead / unit, aside / unit])),
            "lidar": _rows(np.clip(np.minimum(_walls(x, y, cos, sin), circles), 0, world.RANGE) / world.RANGE),
            "privileged": _rows(privileged),
            "velocity": _rows(np.stack([speed / world.FASTEST, turning / world.FASTEST_TURN])),
        }

    def _circles(self, ahead: Floats, aside: Floats, power: Floats) -> Floats:
        """[16, N] to the first circle on each beam, or inf; `power` [8, N] is |centre|² - radius²."""
        along, inside, hit = self._along, self._inside, self._hit
        np.multiply(ahead[:, None], world.COS[:, None], out=along)
        np.multiply(aside[:, None], world.SIN[:, None], out=inside)
        along += inside
        np.multiply(along, along, out=inside)
        inside -= power[:, None]
        np.less(inside, 0, out=hit)
        hit |= along <= 0
        np.maximum(inside, 0, out=inside)
        np.sqrt(inside, out=inside)
        along -= inside
        np.copyto(along, np.inf, where=hit)
        nearest: Floats = along.min(0)
        return nearest

    def _info(self) -> dict[str, Any]:
        given = np.ones(self.num_envs, np.bool_)
        reached, touched = self._reached.copy(), self._touched.copy()
        return {"is_success": reached, "_is_success": given, "touched": touched, "_touched": given.copy()}

    def _single(self) -> LidarNavEnv:
        return LidarNavEnv(render_mode="rgb_array")

    def _paint(self, painter: Any, slot: int) -> Any:
        painter.robot = Robot(*self.robots[:, slot].tolist())
        start, heading = self.robots[:2, slot], float(self.robots[2, slot])
        painter.layout = Layout(start, heading, self.goals[:, slot], self.centres[:, :, slot].T, self.radii[:, slot])
        return painter.render()


def _walls(x: Floats, y: Floats, cos: Floats, sin: Floats) -> Floats:
    """[16, N] to the wall on each beam."""
    c, s = world.COS[:, None], world.SIN[:, None]
    ux, uy = cos * c - sin * s, sin * c + cos * s
    to_x = np.where(ux > 0, world.HALF - x, world.HALF + x) / np.maximum(np.abs(ux), 1e-12)
    to_y = np.where(uy > 0, world.HALF - y, world.HALF + y) / np.maximum(np.abs(uy), 1e-12)
    nearest: Floats = np.minimum(to_x, to_y)
    return nearest


def _rows(values: Floats) -> NDArray[np.float32]:
    """[N, K] of float32, row by row in memory, of [K, N]."""
    return values.T.astype(np.float32, order="C")
