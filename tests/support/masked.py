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

from policykd.rollout.masks import mask_branches

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


class Targets(gym.Env[Any, Any]):
    """The observation names the best of four actions; two others are masked. All chance comes from the seed."""

    observation_space = spaces.Box(0.0, 1.0, (4,), np.float32)
    action_space = spaces.Discrete(4)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.target, self.steps = render_mode, 0, 0
        self.mask = np.ones(4, np.bool_)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._next(), {}

    def step(self, action: Any) -> Any:
        assert self.mask[int(action)], f"masked action {action} was taken"
        reward, self.steps = float(action == self.target), self.steps + 1
        return self._next(), reward, False, self.steps == LENGTH, {}

    def action_masks(self) -> np.ndarray:
        return self.mask

    def render(self) -> np.ndarray:
        return np.full((64, 64, 3), 60 * self.target, np.uint8)

    def _next(self) -> np.ndarray:
        self.target = int(self.np_random.integers(4))
        self.mask = np.ones(4, np.bool_)
        self.mask[self.np_random.choice([a for a in range(4) if a != self.target], 2, replace=False)] = False
        return np.eye(4, dtype=np.float32)[self.target]


def random_masks(space: spaces.Space[Any], n: int) -> np.ndarray:
    """n masks that each allow something."""
    rng = np.random.default_rng(3)
    parts = []
    for size in mask_branches(space):
        part = rng.random((n, size)) < 0.5
        part[np.arange(n), rng.integers(size, size=n)] = True
        parts.append(part)
    return np.concatenate(parts, 1)
