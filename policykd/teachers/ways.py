"""How a policy object of stable-baselines3 comes to its parameters: by which part of it, and by which methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from policykd.spine.errors import InputError
from policykd.teachers.base import Kind
from policykd.teachers.build import FIXED_STD, fixed_log_std


def way_of(policy: Any, name: str) -> tuple[Any, Callable[[Any, Any], Tensor], Kind]:
    """The part of the policy that acts, its way to the parameters, and its kind."""
    from sb3_contrib.ars.policies import ARSPolicy
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
    from stable_baselines3.common.policies import ActorCriticPolicy

    actor = getattr(policy, "actor", None)
    if hasattr(policy, "lstm_actor"):
        return policy, first_step, "policy"
    if isinstance(policy, MaskableActorCriticPolicy):
        return policy, _actor_critic, "policy"
    if isinstance(policy, ARSPolicy):
        return policy, _scored, "deterministic" if isinstance(policy.action_space, spaces.Box) else "value"
    if isinstance(policy, ActorCriticPolicy):
        return policy, _actor_critic, "policy"
    if actor is not None and hasattr(actor, "get_action_dist_params"):
        return actor, _squashed, "policy"
    if actor is not None:
        return actor, _deterministic, "deterministic"
    if hasattr(policy, "quantile_net"):
        return policy.quantile_net, _quantiles, "value"
    if hasattr(policy, "q_net"):
        return policy.q_net, _call, "value"
    raise unsupported(policy, name, "expected an actor-critic policy, an actor, or a Q-network")


def _call(root: Any, observation: Any) -> Tensor:
    values = root(observation)
    assert isinstance(values, Tensor)
    return values


def _quantiles(root: Any, observation: Any) -> Tensor:
    return _call(root, observation).mean(dim=1)


def _deterministic(root: Any, observation: Any) -> Tensor:
    mean = _call(root, observation)
    return torch.cat([mean, torch.full_like(mean, math.log(FIXED_STD))], -1)


def _scored(root: Any, observation: Any) -> Tensor:
    outputs = root.action_net(root.extract_features(observation, root.features_extractor))
    assert isinstance(outputs, Tensor)
    if not isinstance(root.action_space, spaces.Box):
        return outputs
    log_std = fixed_log_std(root.action_space, unit=bool(root.squash_output)).to(outputs.device)
    return torch.cat([outputs, log_std.expand_as(outputs)], -1)


def first_step(root: Any, observation: Any) -> Tensor:
    """Parameters [B, P] of a policy with an LSTM whose memory is empty."""
    lstm = root.lstm_actor
    n = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
    empty = torch.zeros(lstm.num_layers, n, lstm.hidden_size, device=root.device)
    return params_of(root.get_distribution(observation, (empty, empty), torch.zeros(n, device=root.device))[0])


def _squashed(root: Any, observation: Any) -> Tensor:
    mean, log_std, gsde = root.get_action_dist_params(observation)
    if gsde:
        normal = root.action_dist.proba_distribution(mean, log_std, **gsde).distribution
        mean, log_std = normal.mean, normal.stddev.log()
    return torch.cat([mean, log_std], -1)


def _actor_critic(root: Any, observation: Any) -> Tensor:
    return params_of(root.get_distribution(observation))


def params_of(found: Any) -> Tensor:
    """Our parameters of a distribution of stable-baselines3 or, without masks, of MaskablePPO."""
    branches = getattr(found, "distributions", None)  # of MaskablePPO; two choices, off and on, for each bit
    if branches is not None:
        logits = [branch.logits for branch in branches]
        bits = type(found).__name__ == "MaskableBernoulliDistribution"
        return torch.cat([one[:, 1:] - one[:, :1] for one in logits] if bits else logits, -1)
    inner = found.distribution
    if isinstance(inner, list):
        return torch.cat([branch.logits for branch in inner], -1)
    if isinstance(inner, torch.distributions.Normal):
        return torch.cat([inner.mean, inner.stddev.log()], -1)
    logits = inner.logits
    assert isinstance(logits, Tensor)
    return logits


def unsupported(policy: Any, name: str, why: str) -> InputError:
    """The refusal of a policy, with its class."""
    policy_class = f"{type(policy).__module__}.{type(policy).__qualname__}"
    return InputError(f"{name}: policy class {policy_class!r} is not supported: {why}; train with MlpPolicy")
