"""A teacher's distribution parameters against stable-baselines3's own policy object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from policykd.loss.distributions import Bernoulli, DiagGaussian, SquashedDiagGaussian
from policykd.teachers.base import Teacher


def same_distribution(teacher: Teacher, params: torch.Tensor, policy: Any, batch: Any) -> None:
    """The parameters are those that SB3's `policy` computes from the same batch of tensors."""
    algo = teacher.info.algo
    if algo in ("ppo", "a2c", "trpo"):
        _same_torch_distribution(teacher, params, policy.get_distribution(batch))
    elif algo in ("sac", "tqc", "crossq"):
        mean, log_std, extra = policy.actor.get_action_dist_params(batch)
        _same_torch_distribution(teacher, params, policy.actor.action_dist.proba_distribution(mean, log_std, **extra))
    elif algo == "dqn":
        assert torch.equal(params, policy.q_net(batch))
    elif algo == "qrdqn":
        assert torch.equal(params, policy.quantile_net(batch).mean(dim=1))
    elif isinstance(teacher.distribution, DiagGaussian):
        mean = policy.actor(batch) if algo in ("td3", "ddpg") else policy.action_net(batch)
        assert torch.equal(teacher.distribution.mode(params), mean)
        assert torch.allclose(params[:, mean.shape[1] :].exp(), _stated_std(teacher).expand_as(mean))
    else:
        assert torch.equal(params, policy.action_net(batch))


def sb3_values(policy: Any, algo: str, tensors: Any) -> torch.Tensor:
    """What the networks of stable-baselines3 say, [B]."""
    if algo in ("ppo", "a2c", "trpo"):
        return policy.predict_values(tensors)[:, 0]
    if algo == "dqn":
        return policy.q_net(tensors).max(dim=1).values
    if algo == "qrdqn":
        return policy.quantile_net(tensors).mean(dim=1).max(dim=1).values
    actions = policy.actor(tensors) if algo in ("td3", "ddpg") else policy.actor(tensors, deterministic=True)
    found = policy.critic(tensors, actions)
    return found.mean(dim=(1, 2)) if algo == "tqc" else torch.stack(found).min(dim=0).values[:, 0]


def _stated_std(teacher: Teacher) -> torch.Tensor:
    """The deviation that policykd states for a teacher without one: a twentieth of the range of its outputs."""
    space: Any = teacher.action_space
    if teacher.action_map.kind == "unscale":
        return torch.full(space.shape, 0.1)
    return torch.from_numpy(np.float32(0.05) * (space.high - space.low))


def _same_torch_distribution(teacher: Teacher, params: torch.Tensor, expected: Any) -> None:
    distribution, theirs = teacher.distribution, expected.distribution
    if isinstance(theirs, torch.distributions.Normal):
        dim = theirs.mean.shape[1]
        assert torch.equal(params[:, :dim], theirs.mean)
        assert torch.allclose(params[:, dim:].exp(), theirs.stddev.expand_as(theirs.mean), rtol=1e-6)
        squashed = isinstance(distribution, SquashedDiagGaussian)
        assert squashed == (teacher.action_map.kind == "unscale")
    elif isinstance(distribution, Bernoulli):
        assert torch.equal(params, theirs.logits)
    else:
        groups = theirs if isinstance(theirs, list) else [theirs]
        sizes = [group.logits.shape[1] for group in groups]
        for logits, group in zip(params.split(sizes, 1), groups, strict=True):
            assert torch.equal(logits - logits.logsumexp(-1, keepdim=True), group.logits)


@contextmanager
def trapped() -> Iterator[None]:
    """Any loader of pickles that is reached inside fails the test."""
    import pickle

    import cloudpickle

    def trap(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("trapped")

    with pytest.MonkeyPatch.context() as patch:
        for module in (pickle, cloudpickle):
            patch.setattr(module, "loads", trap)
            patch.setattr(module, "load", trap)
        patch.setattr(pickle, "Unpickler", trap)
        patch.setattr(torch, "load", trap)
        yield
