"""CartPole and Pendulum without velocities, N at once: Gymnasium's equations on arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.utils import maybe_parse_reset_bounds, verify_number_and_cast
from numpy.typing import NDArray

from policykd_envs.batch import Batch, BatchEnv, Bools, Floats
from policykd_envs.no_velocity import SHOWN, CartPoleNoVelEnv, PendulumNoVelEnv, cartpole_space, pendulum_space

Seen = NDArray[np.float32]

GRAVITY, POLE_MASS, TOTAL_MASS, HALF_LENGTH, FORCE, TAU = 9.8, 0.1, 0.1 + 1.0, 0.5, 10.0, 0.02
MOST_X, MOST_ANGLE = 2.4, 12 * 2 * math.pi / 360
MOST_SPEED, MOST_TORQUE, DT, PENDULUM_GRAVITY = 8, 2.0, 0.05, 10.0


def cartpole_moved(state: Floats, push_right: Bools) -> Floats:
    """The next states [4, N] of carts (position, velocity, angle, angular velocity), pushed right or left.

    Explicit Euler, as `gymnasium.envs.classic_control.CartPoleEnv`, after Barto, Sutton and Anderson (1983),
    "Neuronlike adaptive elements that can solve difficult learning control problems", with Florian's (2007) equations.
    """
    _, x_dot, theta, theta_dot = state
    force = np.where(push_right, FORCE, -FORCE)
    cos, sin = np.cos(theta), np.sin(theta)
    pole = POLE_MASS * HALF_LENGTH
    temp = (force + pole * np.square(theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * temp) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * np.square(cos) / TOTAL_MASS))
    x_acc = temp - pole * theta_acc * cos / TOTAL_MASS
    rates = np.stack([x_dot, x_acc, theta_dot, theta_acc])
    return state + TAU * rates


def pendulum_cost(state: Floats, torque: Floats) -> Floats:
    """[N] of Pendulum-v1: squared angle from upright, and a little of the speed's and the torque's squares."""
    theta, theta_dot = state
    angle = (theta + np.pi) % (2 * np.pi) - np.pi
    cost: Floats = angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2
    return cost


def pendulum_moved(state: Floats, torque: Floats) -> Floats:
    """The next states [2, N] (angle, speed) of rods of 1 m and 1 kg, as `gymnasium`'s `PendulumEnv`."""
    theta, theta_dot = state
    faster = theta_dot + (3 * PENDULUM_GRAVITY / 2 * np.sin(theta) + 3.0 * torque) * DT
    faster = np.clip(faster, -MOST_SPEED, MOST_SPEED)
    return np.stack([theta + faster * DT, faster])


class CartPoleNoVelVectorEnv(BatchEnv):
    """N `CartPoleNoVel-v0`."""

    metadata: dict[str, Any] = {**BatchEnv.metadata, "render_fps": 50}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 500, render_mode: str | None = None) -> None:
        super().__init__(Batch(num_envs, max_episode_steps, render_mode), cartpole_space(), spaces.Discrete(2))
        self._allocate()

    def _allocate(self) -> None:
        self.state = np.zeros((4, self.num_envs))

    def _start(self, slot: int, generator: np.random.Generator, options: dict[str, Any] | None) -> None:
        low, high = maybe_parse_reset_bounds(options, -0.05, 0.05)
        self.state[:, slot] = generator.uniform(low, high, 4)

    def _advance(self, actions: Any) -> tuple[Floats, Bools]:
        if not self.action_space.contains(actions):
            raise ValueError(f"actions are {actions!r}, expected {self.num_envs} integers, each 0 or 1")
        self.state = cartpole_moved(self.state, actions == 1)
        ended = (np.abs(self.state[0]) > MOST_X) | (np.abs(self.state[2]) > MOST_ANGLE)
        return np.ones(self.num_envs), ended

    def _observe(self) -> Seen:
        return self.state[list(SHOWN)].T.astype(np.float32, order="C")

    def _single(self) -> CartPoleNoVelEnv:
        return CartPoleNoVelEnv(render_mode="rgb_array")

    def _paint(self, painter: Any, slot: int) -> Any:
        painter.state = self.state[:, slot].copy()
        return painter.render()


class PendulumNoVelVectorEnv(BatchEnv):
    """N `PendulumNoVel-v0`."""

    metadata: dict[str, Any] = {**BatchEnv.metadata, "render_fps": 30}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 200, render_mode: str | None = None) -> None:
        action_space = spaces.Box(-MOST_TORQUE, MOST_TORQUE, (1,), np.float32)
        super().__init__(Batch(num_envs, max_episode_steps, render_mode), pendulum_space(), action_space)
        self._allocate()

    def _allocate(self) -> None:
        self.state = np.zeros((2, self.num_envs))
        self._torque: Any = None

    def _start(self, slot: int, generator: np.random.Generator, options: dict[str, Any] | None) -> None:
        given = options or {}
        most = (given.get("x_init", np.pi), given.get("y_init", 1.0))
        high = np.array([verify_number_and_cast(one) for one in most])
        self.state[:, slot] = generator.uniform(-high, high)
        if self._torque is not None:
            self._torque[slot] = 0.0

    def _advance(self, actions: Any) -> tuple[Floats, Bools]:
        torque = np.clip(actions, -MOST_TORQUE, MOST_TORQUE).reshape(self.num_envs)
        reward = -pendulum_cost(self.state, torque)
        self.state, self._torque = pendulum_moved(self.state, torque), torque
        return reward, np.zeros(self.num_envs, np.bool_)

    def _observe(self) -> Seen:
        theta = self.state[0]
        return np.stack([np.cos(theta), np.sin(theta)], axis=1).astype(np.float32)

    def _single(self) -> PendulumNoVelEnv:
        return PendulumNoVelEnv(render_mode="rgb_array")

    def _paint(self, painter: Any, slot: int) -> Any:
        painter.state = self.state[:, slot].copy()
        painter.last_u = None if self._torque is None else self._torque[slot]
        return painter.render()
