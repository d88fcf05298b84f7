"""CartPole and Pendulum as Gymnasium has them, with the velocities hidden: what a policy must remember to act well."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from numpy.typing import NDArray

Seen = NDArray[np.float32]
SHOWN = (0, 2)  # of CartPole's state: position and angle


def cartpole_space() -> spaces.Box:
    """[position in m, angle in rad], with CartPole-v1's bounds: twice those at which an episode ends."""
    high = np.array([4.8, 2 * 12 * 2 * math.pi / 360], np.float32)
    return spaces.Box(-high, high, dtype=np.float32)


def pendulum_space() -> spaces.Box:
    """[cos, sin] of the angle, which is 0 upright."""
    return spaces.Box(-1.0, 1.0, (2,), np.float32)


class CartPoleNoVelEnv(CartPoleEnv):
    """CartPole-v1 that shows position and angle only; see docs/environments.md."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.observation_space = cartpole_space()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Seen, dict[str, Any]]:
        """As CartPole-v1, with its options `low` and `high`."""
        observation, info = super().reset(seed=seed, options=options)
        return observation[list(SHOWN)], info

    def step(self, action: Any) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """As CartPole-v1."""
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        return observation[list(SHOWN)], reward, terminated, truncated, info


class PendulumNoVelEnv(PendulumEnv):
    """Pendulum-v1 that shows the angle only; see docs/environments.md."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.observation_space = pendulum_space()

    def _get_obs(self) -> Seen:
        theta = self.state[0]
        return np.array([np.cos(theta), np.sin(theta)], dtype=np.float32)


class WithoutVelocity(gymnasium.ObservationWrapper[Seen, Any, Seen]):
    """Pendulum-v1 as PendulumNoVel-v0 shows it: for a student whose teacher sees the speed (`student.wrappers`)."""

    def __init__(self, env: gymnasium.Env[Seen, Any]) -> None:
        super().__init__(env)
        space: Any = pendulum_space()
        self.observation_space = space

    def observation(self, observation: Seen) -> Seen:
        """[cos, sin] of [cos, sin, speed]."""
        return np.asarray(observation[:2], np.float32)
