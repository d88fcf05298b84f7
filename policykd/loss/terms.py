"""What pulls a student to its teacher: one definition each, pure, per state, broadcasting a leading student axis.

Every term takes (distribution, teacher [B, P], student [S, B, P] or [B, P]) and gives [S, B] or [B]. Masked actions
have logit -inf on both sides and add nothing. Which term is defined for which distribution says `refuse_undefined`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.loss.distributions import Bernoulli, Categorical, Distribution, MultiCategorical, is_gaussian
from policykd.spine.errors import InputError

Kind = Literal["forward_kl", "reverse_kl", "jsd", "cross_entropy", "expected_entropy", "mse", "huber"]
Term = Callable[[Distribution, Tensor, Tensor], Tensor]
REGRESSIONS = ("mse", "huber")  # compare parameters, so that a temperature would only be a factor
_DELTA = 1.0  # where Huber's loss turns from a square into a line


def forward(distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student), mass-covering, in nats."""
    return distribution.kl(teacher, student)


def reverse(distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
    """KL(student || teacher), mode-seeking, in nats."""
    return distribution.kl(student, teacher)


def jensen_shannon(distribution: Distribution, teacher: Tensor, student: Tensor, weight: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence, w KL(t || m) + (1 - w) KL(s || m) with m = w t + (1 - w) s, in nats.

    Agarwal et al. 2023 (arXiv:2306.13649, eq. 1, whose beta is w). Discrete actions only: the mixture of two Gaussians
    is none. Branches and bits are independent, and their divergences are added, as if each were a choice of its own.
    """
    total = student.new_zeros(torch.broadcast_shapes(teacher.shape[:-1], student.shape[:-1]))
    for p, q in zip(_log_probs(distribution, teacher), _log_probs(distribution, student), strict=True):
        # a masked action is impossible in both, and -inf - (-inf) must not be computed
        never = torch.isinf(p) & torch.isinf(q)
        m = torch.logaddexp(
            torch.where(never, torch.zeros_like(q), p + torch.log(torch.tensor(weight))),
            torch.where(never, torch.zeros_like(q), q + torch.log(torch.tensor(1.0 - weight))),
        )
        total = total + (weight * _expected(p, p - m, never) + (1.0 - weight) * _expected(q, q - m, never))
    return total


def cross_entropy(distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
    """-E_teacher[log student] in nats: the forward KL plus the teacher's entropy, and the same gradient."""
    return distribution.kl(teacher, student) + distribution.entropy(teacher)


def expected_entropy(distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
    """-E_student[log teacher] in nats: the term of expected-entropy-regularised distillation (Czarnecki et al. 2019,
    arXiv:1902.02186, section 4).

    Where it differs from the paper: states are those of the data set that all rounds fill, and the return that passes
    the cost of later states back to earlier actions is left out, as in the paper's variants without it.
    """
    return distribution.kl(student, teacher) + distribution.entropy(student)


def squared(distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
    """Half the mean squared error of the parameters that a network computes: logits, or means (before a tanh).

    Of logits (Ba and Caruana 2014, arXiv:1312.6184) without what a softmax does not see: each side's own mean is
    taken off first, which is where it differs from the paper. A Gaussian's log_std is not compared.
    """
    return 0.5 * _gaps(distribution, teacher, student).square().mean(-1)


def huber(distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
    """As `squared`, but linear where the error exceeds 1 (Huber 1964): outliers pull with bounded force."""
    gap = _gaps(distribution, teacher, student)
    return F.huber_loss(gap, torch.zeros_like(gap), reduction="none", delta=_DELTA).mean(-1)


TERMS: dict[Kind, Term] = {
    "forward_kl": forward,
    "reverse_kl": reverse,
    "jsd": jensen_shannon,
    "cross_entropy": cross_entropy,
    "expected_entropy": expected_entropy,
    "mse": squared,
    "huber": huber,
}


def refuse_undefined(kind: str, distribution: Distribution) -> None:
    """InputError for a term that this distribution does not have."""
    if kind == "jsd" and is_gaussian(distribution):
        raise InputError(
            "loss.kind jsd: the mixture of two Gaussians has no KL in closed form, and this teacher's actions are "
            "continuous: use loss.kind=forward_kl or reverse_kl"
        )


def _gaps(distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
    n = distribution.n_means
    gap = student[..., :n] - torch.where(torch.isinf(teacher[..., :n]), student[..., :n], teacher[..., :n])
    gap = torch.where(torch.isfinite(gap), gap, torch.zeros_like(gap))  # masked on both sides
    if is_gaussian(distribution) or isinstance(distribution, Bernoulli):
        return gap
    known = torch.isfinite(teacher[..., :n]).expand_as(gap)
    sizes = distribution.nvec if isinstance(distribution, MultiCategorical) else (n,)
    parts = [
        torch.where(k, part - part.sum(-1, keepdim=True) / k.sum(-1, keepdim=True), torch.zeros_like(part))
        for part, k in zip(gap.split(sizes, -1), known.split(sizes, -1), strict=True)
    ]
    return torch.cat(parts, -1)


def _log_probs(distribution: Distribution, params: Tensor) -> list[Tensor]:
    """The log-probabilities [..., n] of each choice."""
    if isinstance(distribution, Bernoulli):
        return [torch.stack([F.logsigmoid(-bit), F.logsigmoid(bit)], -1) for bit in params.unbind(-1)]
    assert isinstance(distribution, Categorical | MultiCategorical)
    sizes = distribution.nvec if isinstance(distribution, MultiCategorical) else (distribution.n,)
    return [part.log_softmax(-1) for part in params.split(sizes, -1)]


def _expected(log_p: Tensor, value: Tensor, never: Tensor) -> Tensor:
    """sum p * value; where p is zero its value is not looked at, nor its gradient."""
    known = torch.where(never | torch.isinf(log_p), torch.zeros_like(value), value)
    return (log_p.exp() * known).sum(-1)
