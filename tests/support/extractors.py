"""A features extractor and a policy class that a safe reader cannot know; a zip names them by this module."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class Waves(BaseFeaturesExtractor):
    """Sines of a dense layer, times a vector that it learns."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 6) -> None:
        super().__init__(observation_space, features_dim)
        self.dense = nn.Linear(observation_space.shape[0], features_dim)
        self.norm = nn.LayerNorm(features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        return self.norm(torch.sin(self.dense(observations)))


class OwnPolicy(ActorCriticPolicy):
    """A subclass that changes nothing but its name."""


class ContraryPolicy(ActorCriticPolicy):
    """A policy whose predict is not the mode of its distribution."""

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return 1 - super()._predict(observation, deterministic=deterministic)
