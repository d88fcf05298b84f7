"""Action masks as pure functions of parameters: a forbidden action has probability zero, in teacher and student.

Invalid actions get logit -inf (Huang and Ontanon 2020, arXiv:2006.14171). Where it differs from sb3-contrib: there
the logit is -1e8, and a state without any allowed action acts uniformly; here such a state is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policykd.loss.distributions import Bernoulli, Distribution
from policykd.spine.masks import as_mask, branches
from policykd.spine.types import Array, Policy


def apply_mask(distribution: Distribution, params: Tensor, mask: Tensor | Array, where: str = "action mask") -> Tensor:
    """Parameters [..., P] in which the actions that `mask` [..., n] forbids have no probability.

    mask: True = allowed, in the layout of `policykd.spine.masks`; its leading axes broadcast against those of
    `params`. Forbidden logits are -inf; a bit with one side left has logit -inf (off) or inf (on). InputError for a
    wrong width or a distribution that cannot be masked, NumericsError naming `where` for a row that allows nothing.
    """
    plain = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    sizes = branches(distribution.to_json())
    allowed = torch.from_numpy(as_mask(plain, plain.shape[:-1], sizes, where)).to(params.device)
    infinite = torch.tensor(float("inf"), dtype=params.dtype, device=params.device)
    if not isinstance(distribution, Bernoulli):
        return torch.where(allowed, params, -infinite)
    off, on = allowed[..., 0::2], allowed[..., 1::2]
    return torch.where(on, torch.where(off, params, infinite), -infinite)


def masked_like(params: Tensor, labels: Tensor) -> Tensor:
    """`params` [..., P] with the mask that is written in masked `labels` [..., P]; others stay as they are."""
    return torch.where(torch.isinf(labels), labels, params)


def masked_params(policy: Policy, observation: Tensor, mask: Array | None, where: str = "action mask") -> Tensor:
    """The policy's parameters [B, P] for raw observations [B, *shape], under `mask` [B, n] where there is one."""
    params = policy.distribution_params(observation)
    return params if mask is None else apply_mask(policy.distribution, params, mask, where)
