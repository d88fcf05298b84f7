"""Action distributions as pure functions on flat parameter tensors.

A batch of distributions is a tensor [..., P] and a frozen object that knows its layout. Every function broadcasts
over leading dimensions, so S students [S, B, P] against one teacher [B, P] is broadcasting.

Layouts of the last axis:
  Categorical(n)            logits [n]
  MultiCategorical(nvec)    the branches' logits, one after the other [sum(nvec)]
  Bernoulli(n)              logits [n]
  DiagGaussian(dim)         mean [dim], log_std [dim]
  SquashedDiagGaussian(dim) mean [dim], log_std [dim] before the tanh; actions lie in [-1, 1]

Tempering raises the density to the power 1/temperature and normalises: logits are divided by it; a Gaussian
N(mu, s^2) becomes N(mu, temperature * s^2) (before the tanh for the squashed one, where KL is invariant).
A masked action has logit -inf: it has probability zero and contributes 0 * (-inf) = 0 to every sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.loss.gaussians import DiagGaussian, SquashedDiagGaussian
from policykd.spine.errors import InputError

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiagGaussian",
    "Distribution",
    "MultiCategorical",
    "SquashedDiagGaussian",
    "distribution_from_json",
    "is_gaussian",
]


class Distribution(Protocol):
    """The layout of a flat parameter tensor, and the functions on it. All are pure and record gradients."""

    @property
    def n_params(self) -> int:
        """P, the length of the last axis of a parameter tensor."""
        ...

    @property
    def n_means(self) -> int:
        """How many leading parameters a network must produce; the rest (log_std) may be a constant vector."""
        ...

    def temper(self, params: Tensor, temperature: float | Tensor) -> Tensor:
        """Parameters [..., P] of the density raised to 1/temperature and normalised."""
        ...

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) [...], summed over action dimensions, in nats."""
        ...

    def kl_with_gradient(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """KL(p || q) [...] and its gradient by q [..., P] in closed form; records no gradient itself."""
        ...

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """log density or mass [...] of an action as `mode` and `sample` return it."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy [...] in nats (of the Gaussian before the tanh for the squashed one)."""
        ...

    def mode(self, params: Tensor) -> Tensor:
        """The deterministic action: index [...] for Categorical, else a vector [..., A]."""
        ...

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One action drawn from each distribution, in the shape of `mode`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """A JSON document from which `distribution_from_json` makes an equal object."""
        ...


def _expected(prob: Tensor, value: Tensor) -> Tensor:
    """prob * value, and zero where prob is zero. The mask comes first: behind the product, the gradient is 0 * inf."""
    return prob * torch.where(prob > 0, value, torch.zeros_like(value))


def _categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(p, -1), F.log_softmax(q, -1)
    return _expected(log_p.exp(), log_p - log_q).sum(-1)


def _categorical_kl_with_gradient(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """d KL / d logits of q = softmax(q) - softmax(p)."""
    log_p, log_q = F.log_softmax(p, -1), F.log_softmax(q, -1)
    prob = log_p.exp()
    terms = (prob * (log_p - log_q)).masked_fill_((prob == 0).expand_as(log_q), 0.0)
    return terms.sum(-1), log_q.exp_().sub_(prob)


def _categorical_entropy(logits: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, -1)
    return -_expected(log_p.exp(), log_p).sum(-1)


def _gumbel_argmax(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
    return (logits + gumbel).argmax(-1)


@dataclass(frozen=True)
class Categorical:
    """One choice among n; parameters are logits [..., n]."""

    n: int

    @property
    def n_params(self) -> int:
        return self.n

    @property
    def n_means(self) -> int:
        return self.n

    def temper(self, params: Tensor, temperature: float | Tensor) -> Tensor:
        return params / temperature

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        return _categorical_kl(p, q)

    def kl_with_gradient(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return _categorical_kl_with_gradient(p, q)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        log_p = F.log_softmax(params, -1)
        leading = torch.broadcast_shapes(log_p.shape[:-1], action.shape)
        index = action.long().expand(leading).unsqueeze(-1)
        return log_p.expand(*leading, self.n).gather(-1, index).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return _categorical_entropy(params)

    def mode(self, params: Tensor) -> Tensor:
        return params.argmax(-1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return _gumbel_argmax(params, generator)

    def to_json(self) -> dict[str, Any]:
        return {"type": "Categorical", "n": self.n}


@dataclass(frozen=True)
class MultiCategorical:
    """One choice in each of several branches; parameters are the branches' logits side by side [..., sum(nvec)]."""

    nvec: tuple[int, ...]

    @property
    def n_params(self) -> int:
        return sum(self.nvec)

    @property
    def n_means(self) -> int:
        return sum(self.nvec)

    def temper(self, params: Tensor, temperature: float | Tensor) -> Tensor:
        return params / temperature

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        pairs = zip(p.split(self.nvec, -1), q.split(self.nvec, -1), strict=True)
        return torch.stack([_categorical_kl(a, b) for a, b in pairs]).sum(0)

    def kl_with_gradient(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(p.split(self.nvec, -1), q.split(self.nvec, -1), strict=True)
        both = [_categorical_kl_with_gradient(a, b) for a, b in pairs]
        return torch.stack([kl for kl, _ in both]).sum(0), torch.cat([gradient for _, gradient in both], -1)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        branches = zip(self.nvec, params.split(self.nvec, -1), action.unbind(-1), strict=True)
        return torch.stack([Categorical(n).log_prob(part, index) for n, part, index in branches]).sum(0)

    def entropy(self, params: Tensor) -> Tensor:
        return torch.stack([_categorical_entropy(part) for part in params.split(self.nvec, -1)]).sum(0)

    def mode(self, params: Tensor) -> Tensor:
        return torch.stack([part.argmax(-1) for part in params.split(self.nvec, -1)], -1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.stack([_gumbel_argmax(part, generator) for part in params.split(self.nvec, -1)], -1)

    def to_json(self) -> dict[str, Any]:
        return {"type": "MultiCategorical", "nvec": list(self.nvec)}


@dataclass(frozen=True)
class Bernoulli:
    """n independent bits; parameters are logits [..., n]."""

    n: int

    @property
    def n_params(self) -> int:
        return self.n

    @property
    def n_means(self) -> int:
        return self.n

    def temper(self, params: Tensor, temperature: float | Tensor) -> Tensor:
        return params / temperature

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        on = _expected(torch.sigmoid(p), F.logsigmoid(p) - F.logsigmoid(q))
        off = _expected(torch.sigmoid(-p), F.logsigmoid(-p) - F.logsigmoid(-q))
        return (on + off).sum(-1)

    def kl_with_gradient(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return self.kl(p, q), torch.sigmoid(q) - torch.sigmoid(p)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        bits = action.to(params.dtype)
        return (_expected(bits, F.logsigmoid(params)) + _expected(1 - bits, F.logsigmoid(-params))).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        on = _expected(torch.sigmoid(params), F.logsigmoid(params))
        off = _expected(torch.sigmoid(-params), F.logsigmoid(-params))
        return -(on + off).sum(-1)

    def mode(self, params: Tensor) -> Tensor:
        return (params > 0).long()

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(params.shape, generator=generator, device=params.device, dtype=params.dtype)
        return (uniform < torch.sigmoid(params)).long()

    def to_json(self) -> dict[str, Any]:
        return {"type": "Bernoulli", "n": self.n}


def is_gaussian(distribution: Distribution) -> bool:
    """Whether the parameters are a mean and a log_std."""
    return isinstance(distribution, DiagGaussian | SquashedDiagGaussian)


def distribution_from_json(doc: dict[str, Any]) -> Distribution:
    """The object that wrote `doc`; InputError for an unknown type."""
    kind = doc.get("type")
    if kind == "Categorical":
        return Categorical(int(doc["n"]))
    if kind == "MultiCategorical":
        return MultiCategorical(tuple(int(n) for n in doc["nvec"]))
    if kind == "Bernoulli":
        return Bernoulli(int(doc["n"]))
    if kind == "DiagGaussian":
        return DiagGaussian(int(doc["dim"]))
    if kind == "SquashedDiagGaussian":
        return SquashedDiagGaussian(int(doc["dim"]))
    raise InputError(
        f"distribution type {kind!r} is not known: expected one of Categorical, MultiCategorical, "
        "Bernoulli, DiagGaussian, SquashedDiagGaussian"
    )
