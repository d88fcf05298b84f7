"""Several distributions over the same actions become one of the same layout: pure functions of parameters [K, B, P].

mixture  the linear opinion pool, sum_k w_k p_k(a): what is likely for one teacher stays likely.
product  the logarithmic opinion pool, prod_k p_k(a)^w_k, normalised: what one teacher excludes is excluded.

Genest and Zidek 1986 (Statistical Science 1, 114) compare the pools; over the actions of several algorithms they are
Boltzmann addition and multiplication (Wiering and van Hasselt 2008, IEEE SMC-B 38, 930). Weights sum to 1. A product is
exact in every layout. A mixture is exact for one choice; of several branches, of bits and of Gaussians it leaves the
layout, and the nearest member of it in KL(mixture || member) stands for it: the marginals, and the Gaussian of the
mixture's mean and variance (before the tanh, which the KL does not see).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.loss.distributions import Bernoulli, Distribution, MultiCategorical, is_gaussian


def mixture(distribution: Distribution, params: Tensor, weights: Tensor) -> Tensor:
    """Parameters [B, P] of the weighted mean of K densities, params [K, B, P], weights [K]."""
    w = weights.view(-1, 1, 1)
    if is_gaussian(distribution):
        means, log_std = params.chunk(2, -1)
        mean = (w * means).sum(0)
        variance = (w * ((2 * log_std).exp() + (means - mean).square())).sum(0)
        return torch.cat([mean, 0.5 * variance.log()], -1)
    if isinstance(distribution, Bernoulli):
        on, off = (torch.logsumexp(F.logsigmoid(x) + w.log(), 0) for x in (params, -params))
        return on - off
    return torch.logsumexp(_log_probs(distribution, params) + w.log(), 0)


def product(distribution: Distribution, params: Tensor, weights: Tensor) -> Tensor:
    """Parameters [B, P] of the weighted geometric mean of K densities, params [K, B, P], weights [K].

    Of Gaussians the precisions add up, and the mean is that of the means by precision. A density of weight 0 has no
    say, not even where it is 0.
    """
    said = weights > 0
    params, w = params[said], weights[said].view(-1, 1, 1)
    if is_gaussian(distribution):
        means, log_std = params.chunk(2, -1)
        precision = w * (-2 * log_std).exp()
        total = precision.sum(0)
        return torch.cat([(precision * means).sum(0) / total, -0.5 * total.log()], -1)
    if isinstance(distribution, Bernoulli):
        return (w * params).sum(0)
    return (w * _log_probs(distribution, params)).sum(0)


def chosen(params: Tensor, values: Tensor) -> Tensor:
    """Parameters [B, P] of the one whose value is highest (of equals the first): params [K, B, P], values [K, B]."""
    return params[values.argmax(0), torch.arange(params.shape[1], device=params.device)]


def affine(params: Tensor, centre: Tensor, half: Tensor) -> Tensor:
    """A Gaussian [..., 2A] of x as that of (x - centre) / half; centre and half [A]."""
    mean, log_std = params.chunk(2, -1)
    return torch.cat([(mean - centre) / half, log_std - half.log()], -1)


def unsquashed(params: Tensor, least_std: float = 0.01) -> Tensor:
    """A squashed Gaussian [..., 2A] as a plain one over the same actions in [-1, 1].

    Its mean is the mode that the squashed one acts by, tanh(mean), and its variance the mean square of the action's
    distance to it (Gauss-Hermite quadrature): of all Gaussians with that mean the nearest in KL(squashed || Gaussian).
    At the bounds, where that variance vanishes, the deviation is `least_std`.
    """
    mean, log_std = params.chunk(2, -1)
    mode = torch.tanh(mean)
    total = torch.zeros_like(mode)
    for node, weight in _HERMITE:
        total += weight * (torch.tanh(mean + node * log_std.exp()) - mode).square()
    return torch.cat([mode, 0.5 * total.clamp(min=least_std**2).log()], -1)


def _hermite(n: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of an expectation over the standard normal distribution."""
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return tuple(zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True))


_HERMITE = _hermite(21)


def _log_probs(distribution: Distribution, logits: Tensor) -> Tensor:
    if isinstance(distribution, MultiCategorical):
        return torch.cat([part.log_softmax(-1) for part in logits.split(distribution.nvec, -1)], -1)
    return logits.log_softmax(-1)
