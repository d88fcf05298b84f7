"""Wrappers of a student's own view: one that only hides, and some that do what a view must not."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Blind(gym.ObservationWrapper[Any, Any, Any]):
    """Hides CartPole's velocities, in the very array that it is given."""

    def observation(self, observation: Any) -> Any:
        observation[1::2] = 0.0
        return observation


class Doubled(gym.RewardWrapper[Any, Any]):
    """Changes rewards."""

    def reward(self, reward: Any) -> Any:
        return 2 * reward


class Ending(gym.Wrapper[Any, Any, Any, Any]):
    """Ends every episode at once."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = self.env.step(action)
        return observation, reward, True, truncated, info


class Flipped(gym.ActionWrapper[Any, Any, Any]):
    """Changes actions."""

    def action(self, action: Any) -> Any:
        return 1 - action


class Other(gym.ActionWrapper[Any, Any, Any]):
    """Has other actions."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(3)

    def action(self, action: Any) -> Any:
        return action % 2


class Twice(gym.Wrapper[Any, Any, Any, Any]):
    """Steps twice."""

    def step(self, action: Any) -> Any:
        self.env.step(action)
        return self.env.step(action)


class Waits(gym.Wrapper[Any, Any, Any, Any]):
    """Begins an episode with a step."""

    def reset(self, **kwargs: Any) -> Any:
        self.env.reset(**kwargs)
        observation, *_, info = self.env.step(0)
        return observation, info


class Painted(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole as a small picture: two bars, as far along as the cart's place and the pole's angle; `beside`: together
    with the numbers."""

    SPACE = gym.spaces.Box(0, 255, (8, 12, 1), np.uint8)

    def __init__(self, env: gym.Env[Any, Any], beside: bool = False) -> None:
        super().__init__(env)
        self._beside = beside
        self.observation_space = self.SPACE
        if beside:
            self.observation_space = gym.spaces.Dict({"picture": self.SPACE, "state": env.observation_space})

    def observation(self, observation: Any) -> Any:
        picture = np.zeros(self.SPACE.shape, np.uint8)
        for rows, value, most in ((slice(0, 4), observation[0], 2.4), (slice(4, 8), observation[2], 0.21)):
            picture[rows, : int(np.clip(6 + 6 * value / most, 0, 12))] = 255
        return {"picture": picture, "state": observation} if self._beside else picture
