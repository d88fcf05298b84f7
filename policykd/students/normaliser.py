"""The student's own observation normaliser: clip((x - mean) * scale, +-limit), float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.spine.types import Array

F32 = NDArray[np.float32]
LIMIT = 10.0
_STILL = 1e-6  # a standard deviation below this part of the mean is float32 noise of a constant,
_NOISE = 1e-8  # and one below this is noise whatever the mean


@dataclass(frozen=True)
class Normaliser:
    """mean [O] and scale = 1/std [O], float32, in units of the raw, flattened observation.

    Of images every pixel of a channel has the same: then `places` [O] says which of K numbers is each feature's, and
    mean and scale are [K].
    """

    mean: F32
    scale: F32
    limit: float = LIMIT
    places: NDArray[np.intp] | None = None

    @classmethod
    def measured(cls, observations: Array) -> Normaliser:
        """From visited states [N, O]. A feature that hardly moves is centred but not blown up."""
        values = np.asarray(observations, np.float64)
        return cls(*_mean_and_scale(values.mean(0), values.std(0)))

    @classmethod
    def measured_by_place(cls, parts: Callable[[], Iterable[Array]], places: NDArray[np.intp]) -> Normaliser:
        """The same from visited states that come in parts [n, O], twice, with one mean and scale for each place."""

        def averaged(of: Callable[[Array], Array]) -> NDArray[np.float64]:
            total, rows = np.zeros(len(places)), 0
            for part in parts():
                total += of(part.astype(np.float64)).sum(0)
                rows += len(part)
            return np.bincount(places, total) / (np.bincount(places) * rows)

        mean = averaged(lambda x: x)
        std = np.sqrt(averaged(lambda x: np.square(x - mean[places])))
        return cls(*_mean_and_scale(mean, std), places=places)

    @classmethod
    def of_teacher(cls, mean: Array, std: Array, limit: float) -> Normaliser:
        """A normalised teacher's own statistics, gathered over its whole training: mean [O], std [O]."""
        scale = 1.0 / np.asarray(std, np.float64)
        return cls(np.asarray(mean, np.float32), scale.astype(np.float32), float(limit))

    def apply(self, observations: Tensor) -> Tensor:
        """Normalised float32 [..., O] of raw observations [..., O] on any device."""
        return self.tensors(observations.device).apply(observations)

    def undone(self, inputs: Tensor) -> Tensor:
        """Raw observations [..., O] of normalised ones that were not cut off; of vectors only."""
        return self.tensors(inputs.device).undone(inputs)

    def tensors(self, device: torch.device) -> TensorNormaliser:
        """The same on tensors of `device`, for many calls: nothing is copied there any more."""
        rows = (self.mean, self.scale) if self.places is None else (self.mean[self.places], self.scale[self.places])
        mean, scale = (torch.from_numpy(row).to(device) for row in rows)
        return TensorNormaliser(mean, scale, self.limit)


@dataclass(frozen=True)
class TensorNormaliser:
    """`Normaliser` on a device, with mean and scale [O] of every feature."""

    mean: Tensor
    scale: Tensor
    limit: float

    def apply(self, observations: Tensor) -> Tensor:
        """Normalised float32 [..., O] of raw observations [..., O]."""
        return observations.float().sub(self.mean).mul_(self.scale).clamp_(-self.limit, self.limit)

    def undone(self, inputs: Tensor) -> Tensor:
        """Raw observations [..., O] of normalised ones that were not cut off; of vectors only."""
        return inputs / self.scale + self.mean


def _mean_and_scale(mean: NDArray[np.float64], std: NDArray[np.float64]) -> tuple[F32, F32]:
    still = std <= np.maximum(_STILL * np.abs(mean), _NOISE)
    std = np.where(still, 1.0, std)
    return mean.astype(np.float32), (1.0 / std).astype(np.float32)
