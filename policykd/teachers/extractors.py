"""From observations to features, as stable-baselines3's extractors make them: flattened, one-hot, NatureCNN, combined.

Every operation is the one stable-baselines3 performs, in its order, so that equal batches give equal bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Part(Protocol):
    """One leaf of the observation on its way to features. Frozen dataclasses of tensors and plain values."""

    @property
    def size(self) -> int:
        """How many features come out."""
        ...

    @property
    def cost(self) -> tuple[int, int]:
        """(parameters, multiply-accumulates)."""
        ...

    def __call__(self, leaf: Tensor) -> Tensor:
        """Features [B, size], float32, of a leaf [B, *shape]."""
        ...


@dataclass(frozen=True)
class Flat:
    """Numbers as they are, or divided by 255 (images that are flattened)."""

    size: int
    divide: bool = False

    @property
    def cost(self) -> tuple[int, int]:
        return 0, 0

    def __call__(self, leaf: Tensor) -> Tensor:
        values = leaf.reshape(leaf.shape[0], -1).float()
        return values / 255.0 if self.divide else values


@dataclass(frozen=True)
class OneHot:
    """One-hot for each of the `nvec` choices."""

    nvec: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(self.nvec)

    @property
    def cost(self) -> tuple[int, int]:
        return 0, 0

    def __call__(self, leaf: Tensor) -> Tensor:
        flat = leaf.reshape(leaf.shape[0], -1)
        return torch.cat([F.one_hot(flat[:, i].long(), n).float() for i, n in enumerate(self.nvec)], -1)


@dataclass(frozen=True)
class NatureCnn:
    """Three convolutions and a dense layer, each with ReLU (Mnih 2015, in stable-baselines3's form), on a leaf
    [B, channels, height, width]; strides 4, 2, 1. `pixels`: positions at the output of each convolution."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    linear: Tensor
    bias: Tensor
    divide: bool
    pixels: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(self.linear.shape[0])

    @property
    def cost(self) -> tuple[int, int]:
        tensors = (*self.weights, *self.biases, self.linear, self.bias)
        macs = sum(w.numel() * n for w, n in zip(self.weights, self.pixels, strict=True)) + self.linear.numel()
        return sum(t.numel() for t in tensors), macs

    def __call__(self, leaf: Tensor) -> Tensor:
        return F.relu(F.linear(torch.flatten(self.maps(leaf)[-1], 1), self.linear, self.bias))

    def maps(self, leaf: Tensor) -> list[Tensor]:
        """What each convolution gives, behind its ReLU: [B, C, H, W] each."""
        x, found = leaf.float() / 255.0 if self.divide else leaf.float(), list[Tensor]()
        for weight, bias, stride in zip(self.weights, self.biases, NATURE_STRIDES, strict=True):
            x = F.relu(F.conv2d(x, weight, bias, stride))
            found.append(x)
        return found


NATURE_STRIDES = (4, 2, 1)
NATURE_KERNELS = (8, 4, 3)


@dataclass(frozen=True)
class Extractor:
    """All leaves' features side by side."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """F."""
        return sum(part.size for part in self.parts)

    @property
    def cost(self) -> tuple[int, int]:
        """(parameters, multiply-accumulates)."""
        costs = [part.cost for part in self.parts]
        return sum(params for params, _ in costs), sum(macs for _, macs in costs)

    def __call__(self, leaves: Sequence[Tensor]) -> Tensor:
        """Features [B, F], float32, of the leaves [B, *shape] in the order of the space."""
        features = [part(leaf) for part, leaf in zip(self.parts, leaves, strict=True)]
        return features[0] if len(features) == 1 else torch.cat(features, dim=1)

    def maps(self, leaves: Sequence[Tensor]) -> list[list[Tensor]]:
        """Of each leaf [B, *shape] what the convolutions give, [B, C, H, W] each; of one without them nothing."""
        pairs = zip(self.parts, leaves, strict=True)
        return [part.maps(leaf) if isinstance(part, NatureCnn) else [] for part, leaf in pairs]
