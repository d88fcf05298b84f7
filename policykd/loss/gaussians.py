"""The Gaussian action distributions; `distributions` says what every distribution offers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LOG_2PI = math.log(2.0 * math.pi)
_TANH_EPS = 1e-6  # keeps log(1 - a^2) finite at a = +-1, as stable-baselines3's TanhBijector does


def _halves(params: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return params[..., :dim], params[..., dim:]


@dataclass(frozen=True)
class DiagGaussian:
    """Independent normals; parameters are mean and log_std [..., 2 * dim]."""

    dim: int

    @property
    def n_params(self) -> int:
        return 2 * self.dim

    @property
    def n_means(self) -> int:
        return self.dim

    def temper(self, params: Tensor, temperature: float | Tensor) -> Tensor:
        mean, log_std = _halves(params, self.dim)
        t = temperature.to(params) if isinstance(temperature, Tensor) else params.new_full((), temperature)
        half_log = 0.5 * torch.log(t)
        return torch.cat([mean.expand_as(log_std + half_log), log_std + half_log], -1)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        mean_p, log_p = _halves(p, self.dim)
        mean_q, log_q = _halves(q, self.dim)
        ratio = torch.exp(2.0 * (log_p - log_q))
        error = (mean_p - mean_q).square() * torch.exp(-2.0 * log_q)
        return 0.5 * (ratio + error - 1.0).sum(-1) + (log_q - log_p).sum(-1)

    def kl_with_gradient(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        mean_p, log_p = _halves(p, self.dim)
        mean_q, log_q = _halves(q, self.dim)
        gap = mean_q - mean_p
        slope = gap * torch.exp(-2.0 * log_q)  # d KL / d mean_q
        shift = log_q - log_p
        rest = torch.exp(-2.0 * shift).addcmul_(gap, slope)  # (var_p + gap^2) / var_q
        kl = (shift + 0.5 * rest).sum(-1) - 0.5 * self.dim
        return kl, torch.cat([slope, 1.0 - rest], -1)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        mean, log_std = _halves(params, self.dim)
        scaled = (action - mean) * torch.exp(-log_std)
        return -(0.5 * scaled.square() + log_std + 0.5 * _LOG_2PI).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return (params[..., self.dim :] + 0.5 * (1.0 + _LOG_2PI)).sum(-1)

    def mode(self, params: Tensor) -> Tensor:
        return params[..., : self.dim]

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, log_std = _halves(params, self.dim)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + log_std.exp() * noise

    def to_json(self) -> dict[str, Any]:
        return {"type": "DiagGaussian", "dim": self.dim}


@dataclass(frozen=True)
class SquashedDiagGaussian:
    """tanh of independent normals (SAC, TQC); parameters are mean and log_std before the tanh [..., 2 * dim].

    KL, tempering and entropy are those of the normals before the tanh: KL is invariant under a shared bijection.
    """

    dim: int

    @property
    def _normal(self) -> DiagGaussian:
        return DiagGaussian(self.dim)

    @property
    def n_params(self) -> int:
        return 2 * self.dim

    @property
    def n_means(self) -> int:
        return self.dim

    def temper(self, params: Tensor, temperature: float | Tensor) -> Tensor:
        return self._normal.temper(params, temperature)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        return self._normal.kl(p, q)

    def kl_with_gradient(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return self._normal.kl_with_gradient(p, q)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        bound = 1.0 - torch.finfo(action.dtype).eps
        gaussian = torch.atanh(action.clamp(-bound, bound))
        squash = torch.log(1.0 - action.square() + _TANH_EPS).sum(-1)
        return self._normal.log_prob(params, gaussian) - squash

    def entropy(self, params: Tensor) -> Tensor:
        return self._normal.entropy(params)

    def mode(self, params: Tensor) -> Tensor:
        return torch.tanh(params[..., : self.dim])

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.tanh(self._normal.sample(params, generator))

    def to_json(self) -> dict[str, Any]:
        return {"type": "SquashedDiagGaussian", "dim": self.dim}
