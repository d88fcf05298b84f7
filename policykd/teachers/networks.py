"""The forward pass of a teacher: features, dense layers, and a head that gives distribution parameters.

Every operation is the one stable-baselines3 performs, in its order, so that equal batches give equal bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.loss.distributions import Distribution
from policykd.spine.types import Footprint
from policykd.teachers.extractors import Extractor

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


@dataclass(frozen=True)
class Renorm:
    """Batch renormalisation as it acts after training (arXiv 1702.03275; CrossQ): every tensor is [n]."""

    mean: Tensor
    var: Tensor
    scale: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """[B, n] for [B, n]."""
        return self.scale * ((x - self.mean[None]) / (self.var[None] + self.epsilon).sqrt()) + self.bias

    @property
    def sizes(self) -> tuple[int, int]:
        """(inputs, outputs), which are equal."""
        return self.mean.shape[0], self.mean.shape[0]


Layer = Dense | Renorm


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


class Critic(Protocol):
    """What the teacher was trained with beside its policy. It is no part of acting: it has no share in footprint and
    fingerprint."""

    def __call__(self, leaves: Sequence[Tensor], params: Tensor) -> Tensor:
        """Values [B] of normalised leaves [B, *shape], whose parameters are `params` [B, P]."""
        ...

    def to(self, device: torch.device) -> Critic:
        """The same on another device."""
        ...


@dataclass(frozen=True)
class Network:
    """A teacher's way from (normalised) observations to distribution parameters.

    `kind`: policy (a distribution of its own), value (the logits are values without a scale: Q-values, scores), or
    deterministic (a mean with a fixed spread). `unit_actions`: actions lie in [-1, 1] and are unscaled to the space.
    `critic`: where the source holds one.
    """

    extractor: Extractor
    layers: tuple[Layer, ...]  # the last one is dense
    head: Head
    distribution: Distribution
    kind: Literal["policy", "value", "deterministic"]
    unit_actions: bool
    critic: Critic | None = field(default=None, kw_only=True)

    def __call__(self, leaves: Sequence[Tensor]) -> Tensor:
        """Parameters [B, P], float32, for the leaves [B, *shape] of observations that are normalised already."""
        latent = self.extractor(leaves)
        for layer in self.layers[:-1]:
            latent = layer(latent)
        return self.head(latent, self.layers[-1](latent))

    def value(self, leaves: Sequence[Tensor]) -> Tensor:
        """What the critic says, [B]; the caller has seen that there is one."""
        assert self.critic is not None
        return self.critic(leaves, self(leaves))

    def hidden(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """What each dense layer but the last gives, behind its activation: [B, H_k] each."""
        latent, found = self.extractor(leaves), []
        for layer in self.layers[:-1]:
            latent = layer(latent)
            if isinstance(layer, Dense):
                found.append(latent)
        return found

    @property
    def adds_start(self) -> bool:
        """stable-baselines3 sends 0, 1 ... whatever the space's `start`, and that is what its teachers learned."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        last = self.layers[-1]
        return (last.weight if isinstance(last, Dense) else last.mean).device

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each dense layer behind the extractor."""
        return tuple(layer.sizes for layer in self.layers if isinstance(layer, Dense))

    def footprint(self, constants: int) -> Footprint:
        """What acting by the mode costs, with so many constants in the normaliser."""
        params, macs = self.extractor.cost
        for layer in self.layers:
            if isinstance(layer, Dense):
                params += layer.weight.numel() + (0 if layer.bias is None else layer.bias.numel())
                macs += layer.weight.numel()
            else:  # running statistics are constants
                params, macs, constants = (
                    params + 2 * layer.sizes[0],
                    macs + layer.sizes[0],
                    constants + 2 * layer.sizes[0],
                )
        return Footprint(params, constants, macs)

    def to(self, device: torch.device) -> Network:
        """The same network with its tensors on `device`."""
        layers = tuple(moved(layer, device) for layer in self.layers)
        extractor = Extractor(tuple(moved(part, device) for part in self.extractor.parts))
        critic = None if self.critic is None else self.critic.to(device)
        return replace(self, extractor=extractor, layers=layers, head=moved(self.head, device), critic=critic)

    def fingerprint(self) -> Fingerprint:
        """A running sha256 over every tensor on the way to the parameters."""
        digest = Fingerprint()
        for part in (*self.extractor.parts, *self.layers, self.head):
            digest.add_text(type(part).__name__)
            for name, value in _members(part).items():
                digest.add_text(name)
                for item in value if isinstance(value, tuple) else (value,):
                    digest.add_tensor(item) if isinstance(item, Tensor) else digest.add_text(repr(item))
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
    return {known.name: getattr(part, known.name) for known in fields(part)}


def moved(part: Any, device: torch.device) -> Any:
    """A part of a network (a frozen dataclass) with its tensors on `device`."""

    def move(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(move(item) for item in value)
        return value.to(device) if isinstance(value, Tensor) else value

    return replace(part, **{name: move(value) for name, value in _members(part).items()})
