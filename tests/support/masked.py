"""Environments with action masks: sb3-contrib's, with vector observations, seeds that count, and a refusal of every
masked action."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from sb3_contrib.common.envs import (
    InvalidActionEnvDiscrete,
    InvalidActionEnvMultiBinary,
    InvalidActionEnvMultiDiscrete,
)

LENGTH = 20


class Guarded(gym.Wrapper[Any, Any, Any, Any]):
    """The state one-hot as a Box; a masked action is a mistake, and `taken` counts the others."""

    taken = 0

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        space = env.observation_space
        self._sizes = (
            [int(space.n)]
            if isinstance(space, spaces.Discrete)
            else [2] * space.n
            if isinstance(space, spaces.MultiBinary)
            else [int(n) for n in space.nvec]
        )
        self.observation_space = spaces.Box(0.0, 1.0, (sum(self._sizes),), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.env.action_space.seed(seed)
        observation, info = self.env.reset(seed=seed, options=options)
        return self._one_hot(observation), info

    def step(self, action: Any) -> Any:
        starts = np.cumsum([0, *self._sizes[:-1]])
        allowed = np.asarray(self.env.get_wrapper_attr("action_masks")())
        assert allowed[starts + np.ravel(action)].all(), f"masked action {action} was taken"
        Guarded.taken += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._one_hot(observation), reward, terminated, truncated, info

    def _one_hot(self, state: Any) -> Any:
        return np.concatenate(
            [np.eye(n, dtype=np.float32)[int(i)] for n, i in zip(self._sizes, np.ravel(state), strict=True)]
        )


def discrete() -> Guarded:
    return Guarded(InvalidActionEnvDiscrete(dim=6, ep_length=LENGTH, n_invalid_actions=3))


def multi_discrete() -> Guarded:
    return Guarded(InvalidActionEnvMultiDiscrete(dims=[2, 4], ep_length=LENGTH, n_invalid_actions=2))


def multi_binary() -> Guarded:
    return Guarded(InvalidActionEnvMultiBinary(dims=3, ep_length=LENGTH, n_invalid_actions=2))


MAKERS = {"discrete": discrete, "multi_discrete": multi_discrete, "multi_binary": multi_binary}
