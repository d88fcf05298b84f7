"""A user's own package: importing it registers environments; it also holds a wrapper."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class HeavyPole(CartPoleEnv):
    """CartPole with a pole of another mass, which reports success."""

    def __init__(self, mass: float = 0.1, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.masspole = mass
        self.steps = 0

    def reset(self, **kwargs: Any) -> Any:
        self.steps = 0
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        return observation, reward, terminated, truncated, {**info, "is_success": self.steps >= 100}


class Plain(gym.Wrapper[Any, Any, Any, Any]):
    """Does nothing but be there."""


gym.register("policykd-test/HeavyPole-v0", entry_point=HeavyPole, max_episode_steps=100)
