"""The student's own observation normaliser: clip((x - mean) * scale, +-limit), float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.spine.types import Array

LIMIT = 10.0
_STILL = 1e-6  # a standard deviation below this part of the mean is float32 noise of a constant,
_NOISE = 1e-8  # and one below this is noise whatever the mean


@dataclass(frozen=True)
class Normaliser:
    """mean [O] and scale = 1/std [O], float32, in units of the raw, flattened observation."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    limit: float = LIMIT

    @classmethod
    def measured(cls, observations: Array) -> Normaliser:
        """From visited states [N, O]. A feature that hardly moves is centred but not blown up."""
        values = np.asarray(observations, np.float64)
        mean, std = values.mean(0), values.std(0)
        still = std <= np.maximum(_STILL * np.abs(mean), _NOISE)
        std = np.where(still, 1.0, std)
        return cls(mean.astype(np.float32), (1.0 / std).astype(np.float32))

    @classmethod
    def of_teacher(cls, mean: Array, std: Array, limit: float) -> Normaliser:
        """A normalised teacher's own statistics, gathered over its whole training: mean [O], std [O]."""
        scale = 1.0 / np.asarray(std, np.float64)
        return cls(np.asarray(mean, np.float32), scale.astype(np.float32), float(limit))

    def apply(self, observations: Tensor) -> Tensor:
        """Normalised float32 [..., O] of raw observations [..., O] on any device."""
        mean = torch.from_numpy(self.mean).to(observations.device)
        scale = torch.from_numpy(self.scale).to(observations.device)
        return observations.float().sub(mean).mul_(scale).clamp_(-self.limit, self.limit)
