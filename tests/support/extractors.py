"""A features extractor and a policy class that a safe reader cannot know; a zip names them by this module."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.ars.policies import ARSPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, get_flattened_obs_dim
from torch import Tensor, nn


class Waves(BaseFeaturesExtractor):
    """Sines of a dense layer, times a vector that it learns."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 6) -> None:
        super().__init__(observation_space, features_dim)
        self.dense = nn.Linear(get_flattened_obs_dim(observation_space), features_dim)
        self.norm = nn.LayerNorm(features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        return self.norm(torch.sin(self.dense(observations)))


class Blurred(BaseFeaturesExtractor):
    """The mean of blocks of pixels, and a convolution."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 12) -> None:
        super().__init__(observation_space, features_dim)
        self.pool, self.conv = nn.AdaptiveAvgPool2d((4, 3)), nn.Conv2d(observation_space.shape[0], 1, 1)

    def forward(self, observations: Tensor) -> Tensor:
        return torch.relu(self.conv(self.pool(observations))).flatten(1)


class Mixed(BaseFeaturesExtractor):
    """A dense layer over all entries of a Dict, images by their mean, in an order of its own."""

    def __init__(self, observation_space: spaces.Dict, features_dim: int = 5) -> None:
        super().__init__(observation_space, features_dim)
        self.keys = sorted(observation_space.spaces, reverse=True)
        images = {key for key in self.keys if len(observation_space[key].shape or ()) == 3}
        sizes = [1 if key in images else get_flattened_obs_dim(observation_space[key]) for key in self.keys]
        self.images, self.dense = images, nn.Linear(sum(sizes), features_dim)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        flat = [observations[key].flatten(1) for key in self.keys]
        parts = [x.mean(1, keepdim=True) if key in self.images else x for key, x in zip(self.keys, flat, strict=True)]
        return torch.tanh(self.dense(torch.cat(parts, 1)))


class OwnPolicy(ActorCriticPolicy):
    """A subclass that changes nothing but its name."""


class ContraryPolicy(ActorCriticPolicy):
    """A policy whose predict is not the mode of its distribution."""

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return 1 - super()._predict(observation, deterministic=deterministic)


class OwnArs(ARSPolicy):
    """A subclass that changes nothing but its name."""
