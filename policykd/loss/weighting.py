"""How often a labelled state is drawn: by what a mistake there would cost, as far as the labels say (VIPER).

Bastani et al. 2018 (arXiv:1805.08328, section 3.2) resample states in proportion to l(s) = V(s) - min_a Q(s, a). A
policy has no Q-values: under maximum entropy log pi(a|s) = Q(s, a) - V(s) up to its temperature (Ziebart 2010), so
the gap of log-probabilities takes their place, where it differs from the paper. States of equal weight are drawn as
without weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from policykd.loss.distributions import Bernoulli, Categorical, Distribution, MultiCategorical, is_gaussian
from policykd.spine.errors import InputError

Weighting = Literal["none", "q_gap", "confidence"]
Weigh = Callable[[Tensor], Tensor]
_MOST_GAP = 20.0  # nats: a forbidden or impossible action costs no more than this


def weigh_by(weighting: Weighting, distribution: Distribution) -> Weigh | None:
    """From labels [M, P] to weights [M] >= 0; None where every state counts the same.

    q_gap: the highest logit less the lowest, summed over branches; logits are Q-values (over the run's q_temperature)
    of a DQN and log-probabilities, but for a constant, of a policy. confidence: 1 less the entropy's share of that of
    a uniform choice. Raises InputError for Gaussians, whose densities have no lowest action and no highest entropy.
    """
    if weighting == "none":
        return None
    if is_gaussian(distribution):
        raise InputError(
            f"data.weighting {weighting}: it compares the probabilities of single actions, and this teacher's actions "
            "are continuous: use data.weighting=none"
        )
    return (
        (lambda labels: _gap(distribution, labels))
        if weighting == "q_gap"
        else (lambda labels: _confidence(distribution, labels))
    )


def _gap(distribution: Distribution, labels: Tensor) -> Tensor:
    """A masked action has logit -inf and counts as none."""
    if isinstance(distribution, Bernoulli):
        return labels.abs().nan_to_num(posinf=0.0).clamp(max=_MOST_GAP).sum(-1)
    total = labels.new_zeros(labels.shape[:-1])
    for branch in _branches(distribution, labels):
        lowest = torch.where(torch.isinf(branch), torch.inf, branch).min(-1).values
        total += (branch.max(-1).values - lowest).clamp(0.0, _MOST_GAP)
    return total


def _confidence(distribution: Distribution, labels: Tensor) -> Tensor:
    uniform = distribution.entropy(torch.zeros_like(labels[:1]))
    return (1.0 - distribution.entropy(labels) / uniform).clamp(min=0.0)


def _branches(distribution: Distribution, labels: Tensor) -> list[Tensor]:
    sizes = distribution.nvec if isinstance(distribution, MultiCategorical) else (labels.shape[-1],)
    assert isinstance(distribution, MultiCategorical | Categorical)
    return list(labels.split(sizes, -1))
