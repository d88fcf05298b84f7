"""Environments for worker processes, which must be importable there, and soon (no torch): counting ones, and some that
go wrong in different ways."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Counting(gym.Env[np.ndarray, int]):
    """Observation [key, t]; an episode with key k ends after 1 to 5 steps, by truncation when k is odd."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.key, self.t = 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.key, self.t = (seed or 0) % 1000, 0
        return np.array([self.key, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        reward = self.key + 0.25 * self.t + 0.001 * int(action)
        self.t += 1
        over = self.t > self.key * 7 % 5
        info = {"is_success": self.key % 2 == 0} if over else {}
        observation = np.array([self.key, self.t], np.float32)
        return observation, reward, over and self.key % 2 == 0, over and self.key % 2 == 1, info


class Long(Counting):
    """Counts for 1000 steps, whatever the key."""

    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, self.t >= 1000, info


class Raising(Long):
    def step(self, action: Any) -> Any:
        if self.t == 3:
            raise RuntimeError("the gearbox\nbroke")
        return super().step(action)


class Hanging(Long):
    def step(self, action: Any) -> Any:
        if self.t == 3:
            time.sleep(3600)
        return super().step(action)


class HangingAtReset(Long):
    def reset(self, **options: Any) -> Any:
        time.sleep(3600)
        return super().reset(**options)


class Dying(Long):
    def step(self, action: Any) -> Any:
        if self.t == 3:
            import os

            os._exit(7)
        return super().step(action)


class NotFinite(Long):
    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return np.where(self.t == 3, np.nan, observation).astype(np.float32), *rest


class Masked(Counting):
    """Forbids one action, which one follows from key and time."""

    def action_masks(self) -> Any:
        mask = np.ones(3, bool)
        mask[(self.key + self.t) % 3] = False
        return mask
