"""Stacked frames, as stable-baselines3's VecFrameStack gives them, around a single environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policykd.spine.errors import InputError
from policykd.spine.wrappers import MAX_STACK, STACK

RESTARTED = "policykd_restarted"
"""The key of `info` by which a wrapper says that this observation is the first of a new beginning, though the episode
goes on: the frames before it are forgotten."""

Array = NDArray[Any]


class StackFrames(gym.Wrapper[Any, Any, Any, Any]):
    """The last `n` observations as one: along the last axis, or along the first for images with their channels first.

    The newest comes last. Before the first observation of an episode stand zeros. The entries of a Dict are stacked one
    by one. InputError for observations that are no arrays, and for `n` out of bounds.
    """

    def __init__(self, env: gym.Env[Any, Any], n: int) -> None:
        if type(n) is not int or not 1 <= n <= MAX_STACK:
            raise InputError(f"env.wrappers: {STACK} with n {str(n)[:40]!r}, expected 1 to {MAX_STACK} frames")
        super().__init__(env)
        space, self._stacks = env.observation_space, {}
        if isinstance(space, spaces.Dict):
            self._stacks = {key: _Stack(inner, n) for key, inner in space.spaces.items()}
            self.observation_space = spaces.Dict({key: stack.space for key, stack in self._stacks.items()})
        else:
            self._stacks = {"": _Stack(space, n)}
            self.observation_space = self._stacks[""].space
        self._keyed = isinstance(space, spaces.Dict)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode: its first observation after zeros."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._pushed(observation, clear=True), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Acts, and gives the newest frames."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._pushed(observation, clear=bool(info.get(RESTARTED))), reward, terminated, truncated, info

    def _pushed(self, observation: Any, *, clear: bool) -> Any:
        if self._keyed:
            return {key: stack.push(observation[key], clear=clear) for key, stack in self._stacks.items()}
        return self._stacks[""].push(observation, clear=clear)


class _Stack:
    """The frames of one array; `space` is that of the stacked ones."""

    def __init__(self, space: gym.Space[Any], n: int) -> None:
        if not isinstance(space, spaces.Box) or not space.shape:
            raise InputError(
                f"env.wrappers: {STACK} cannot stack observations of {str(space)[:60]}, expected a Box or Dict of Boxes"
            )
        self._axis = 0 if _channels_first(space) else len(space.shape) - 1
        low, high = (np.repeat(bound, n, axis=self._axis) for bound in (space.low, space.high))
        self.space = spaces.Box(low, high, dtype=space.dtype.type)
        self._size = space.shape[self._axis]
        self._frames: Array = np.zeros(self.space.shape, space.dtype)

    def push(self, observation: Array, *, clear: bool) -> Array:
        """The stack with `observation` behind the others, or behind zeros."""
        frames = np.zeros_like(self._frames) if clear else np.roll(self._frames, -self._size, axis=self._axis)
        newest = (slice(None),) * self._axis + (slice(-self._size, None),)
        frames[newest] = observation
        self._frames = frames
        return frames.copy()


def _channels_first(space: spaces.Box) -> bool:
    """Whether stable-baselines3 takes the space for images with their channels first."""
    from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

    return bool(is_image_space(space) and is_image_space_channels_first(space))
