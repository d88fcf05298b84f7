"""The forward pass of a teacher: dense layers, and a head that turns their output into distribution parameters.

Every operation is the one stable-baselines3 performs, in its order, so that equal batches give equal bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.loss.distributions import Distribution
from policykd.spine.types import Footprint

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # of SAC and TQC without gSDE, as in stable-baselines3
GSDE_EPSILON = 1e-6  # added to the variance, as in stable-baselines3

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "leakyrelu": F.leaky_relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hardtanh": F.hardtanh,
    "identity": lambda x: x,
}
"""Functions with the defaults of the torch module of the same name (in lower case)."""


@dataclass(frozen=True)
class Dense:
    """One dense layer: weight [outputs, inputs], bias [outputs] or None, and the activation behind it."""

    weight: Tensor
    bias: Tensor | None
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        """[B, outputs] for [B, inputs]."""
        return ACTIVATIONS[self.activation](F.linear(x, self.weight, self.bias))

    @property
    def sizes(self) -> tuple[int, int]:
        """(inputs, outputs)."""
        return self.weight.shape[1], self.weight.shape[0]


class Head(Protocol):
    """From the last layer's input `latent` [B, L] and output [B, M] to distribution parameters [B, P]."""

    def __call__(self, latent: Tensor, output: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Logits:
    """The output is the logits."""

    def __call__(self, latent: Tensor, output: Tensor) -> Tensor:
        return output


@dataclass(frozen=True)
class QuantileMean:
    """QR-DQN: n_quantiles x n_actions outputs; the logits are the means over quantiles, the Q-values."""

    n_quantiles: int
    n_actions: int

    def __call__(self, latent: Tensor, output: Tensor) -> Tensor:
        return output.view(-1, self.n_quantiles, self.n_actions).mean(dim=1)


@dataclass(frozen=True)
class ConstantStd:
    """A Gaussian whose log_std [A] does not depend on the state."""

    log_std: Tensor

    def __call__(self, latent: Tensor, output: Tensor) -> Tensor:
        return torch.cat([output, self.log_std.expand_as(output)], -1)


@dataclass(frozen=True)
class LinearStd:
    """SAC and TQC: log_std is a second dense layer on the latent, clamped."""

    weight: Tensor
    bias: Tensor

    def __call__(self, latent: Tensor, output: Tensor) -> Tensor:
        log_std = F.linear(latent, self.weight, self.bias)
        return torch.cat([output, torch.clamp(log_std, LOG_STD_MIN, LOG_STD_MAX)], -1)


@dataclass(frozen=True)
class GsdeStd:
    """gSDE (arXiv 2005.05719): the variance is latent^2 @ std^2, `std` [L, A].

    A positive `clip_mean` bounds the mean to +-clip_mean.
    """

    std: Tensor
    clip_mean: float = 0.0

    def __call__(self, latent: Tensor, output: Tensor) -> Tensor:
        mean = F.hardtanh(output, -self.clip_mean, self.clip_mean) if self.clip_mean > 0 else output
        std = torch.sqrt(torch.mm(latent**2, self.std**2) + GSDE_EPSILON)
        return torch.cat([mean, torch.log(std)], -1)


@dataclass(frozen=True)
class Encoding:
    """From observations [B, *shape] to features [B, F]: flattened, or one-hot for each of the `nvec` choices."""

    size: int
    nvec: tuple[int, ...] = ()

    def __call__(self, observation: Tensor) -> Tensor:
        """Features [B, F], float32."""
        flat = observation.reshape(observation.shape[0], -1)
        if not self.nvec:
            return flat.float()
        hot = [F.one_hot(flat[:, i].long(), n).float() for i, n in enumerate(self.nvec)]
        return torch.cat(hot, -1)


@dataclass(frozen=True)
class Network:
    """A teacher's way from (normalised) observations to distribution parameters.

    `kind`: policy (a distribution of its own), value (the logits are values without a scale: Q-values, scores), or
    deterministic (a mean with a fixed spread). `unit_actions`: actions lie in [-1, 1] and are unscaled to the space.
    """

    encoding: Encoding
    layers: tuple[Dense, ...]
    head: Head
    distribution: Distribution
    kind: Literal["policy", "value", "deterministic"]
    unit_actions: bool

    def __call__(self, observation: Tensor) -> Tensor:
        """Parameters [B, P], float32, for observations [B, *shape] that are normalised already."""
        latent = self.encoding(observation)
        for layer in self.layers[:-1]:
            latent = layer(latent)
        return self.head(latent, self.layers[-1](latent))

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.layers[-1].weight.device

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each dense layer."""
        return tuple(layer.sizes for layer in self.layers)

    def footprint(self, constants: int) -> Footprint:
        """What acting by the mode costs, with so many constants in the normaliser."""
        params = sum(layer.weight.numel() + (0 if layer.bias is None else layer.bias.numel()) for layer in self.layers)
        return Footprint(params, constants, sum(a * b for a, b in self.sizes))

    def to(self, device: torch.device) -> Network:
        """The same network with its tensors on `device`."""
        layers = tuple(_moved(layer, device) for layer in self.layers)
        return replace(self, layers=layers, head=_moved(self.head, device))

    def fingerprint(self) -> Fingerprint:
        """A running sha256 over every tensor on the way to the parameters."""
        digest = Fingerprint()
        for part in (*self.layers, self.head):
            digest.add_text(type(part).__name__)
            for name, value in _members(part).items():
                digest.add_text(name)
                digest.add_tensor(value) if isinstance(value, Tensor) else digest.add_text(repr(value))
        return digest


class Fingerprint:
    """sha256 over named numbers: equal for equal teachers, whatever file they came from."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add_text(self, text: str) -> Self:
        """Add a name or a setting."""
        self._digest.update(text.encode() + b"\0")
        return self

    def add_tensor(self, tensor: Tensor) -> Self:
        """Add shape, dtype and numbers."""
        self.add_text(f"{tuple(tensor.shape)} {tensor.dtype}")
        self._digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return self

    def hexdigest(self) -> str:
        """The 64 hexadecimal digits."""
        return self._digest.hexdigest()


def _members(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _moved(part: Any, device: torch.device) -> Any:
    moved = {name: value.to(device) for name, value in _members(part).items() if isinstance(value, Tensor)}
    return replace(part, **moved)
