"""What a stable-baselines3 zip names when a plain policy cannot hold the student: importable wherever policykd is.

The path of this class stands in zips that people keep: it must not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor


class StudentFeatures(BaseFeaturesExtractor):
    """A student's features, normalised: [B, F] from observations that stable-baselines3 has made floats and one-hot.

    `mean`, `scale` [F] are buffers: training leaves them as they are. `channels_last`: entries of a Dict ("" for a
    plain space) that are images whose channels stable-baselines3 moved to the front; here they move back.
    """

    def __init__(self, observation_space: spaces.Space[Any], limit: float, channels_last: Sequence[str] = ()) -> None:
        inner = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
        n_features = sum(int(get_flattened_obs_dim(space)) for space in inner.values())
        super().__init__(observation_space, n_features)
        self.keys, self.limit, self.channels_last = tuple(inner), limit, frozenset(channels_last)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.mean: Tensor
        self.scale: Tensor

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """Features [B, F]; the entries of a Dict in the order of its space."""
        entries = observations if isinstance(observations, dict) else {"": observations}
        x = torch.cat([self._flat(key, entries[key]) for key in self.keys], -1)
        return torch.clamp((x - self.mean) * self.scale, -self.limit, self.limit)

    def _flat(self, key: str, values: Tensor) -> Tensor:
        return (values.permute(0, 2, 3, 1) if key in self.channels_last else values).flatten(1)
