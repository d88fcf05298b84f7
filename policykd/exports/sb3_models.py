"""A stable-baselines3 model, and a VecNormalize, with a student's numbers in them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from policykd.exports.graph import Activate, Dense, Floats, Graph, Normalise
from policykd.exports.sb3_plan import Plan, key_of, shares
from policykd.exports.sb3_policies import StudentFeatures
from policykd.spine.spaces import decode_space

CRITIC = {"PPO": [64, 64], "MaskablePPO": [64, 64], "SAC": [256, 256]}  # stable-baselines3's own defaults
SEEN = 100_000  # observations that the statistics count for, should they be trained on: new ones move them slowly
_EPSILON = 1e-8  # VecNormalize's own
_BUFFER, _BUFFER_BYTES = 1_000_000, 2**30  # SAC's own size, and what it may take of the memory
_LOG_STD = (-20.0, 2.0)  # where SAC clamps
_SEED = 0  # of the fresh critics


class Nowhere(gym.Env[Any, Any]):
    """An environment that has spaces and nothing else: models are built with it, and it is not saved."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def nowhere(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> DummyVecEnv:
    """A vector environment of one `Nowhere`."""
    return DummyVecEnv([lambda: Nowhere(observation_space, action_space)])


def model_of(graph: Graph, plan: Plan) -> Any:
    """A PPO, MaskablePPO or SAC whose actor is the student; critics and optimizers are fresh, equal in every call."""
    import sb3_contrib
    import stable_baselines3

    kind: Any = getattr(stable_baselines3, plan.algorithm, None) or getattr(sb3_contrib, plan.algorithm)
    observation_space, action_space = decode_space(graph.observation_space), decode_space(graph.action_space)
    policy = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"
    settings: dict[str, Any] = {"policy_kwargs": policy_kwargs(graph, plan), "device": "cpu"}
    if plan.algorithm == "SAC":
        settings["buffer_size"] = _buffer_size(observation_space, action_space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = kind(policy, Nowhere(observation_space, action_space), **settings)
    with torch.no_grad():
        fill(model.policy, graph)
    return model


def statistics_of(graph: Graph, plan: Plan) -> VecNormalize:
    """A VecNormalize that does to observations what the student's normaliser does, and nothing to rewards.

    Its variance is 1 / scale^2 - epsilon, so that 1 / sqrt(variance + epsilon) is the scale to the last bit of float32.
    """
    layer = graph.layers[0]
    assert isinstance(layer, Normalise)
    observation_space = decode_space(graph.observation_space)
    wanted = [share for share in shares(graph) if share[0].name in plan.normalised]
    variances = [1.0 / np.square(scale.astype(np.float64)) for _, _, scale in wanted]
    epsilon = min(_EPSILON, 0.5 * min(float(variance.min()) for variance in variances))
    keys = [key_of(port) for port, _, _ in wanted] if isinstance(observation_space, spaces.Dict) else None
    normalize = VecNormalize(
        nowhere(observation_space, decode_space(graph.action_space)),
        training=False,
        norm_reward=False,
        clip_obs=layer.limit,
        epsilon=epsilon,
        norm_obs_keys=keys,
    )
    statistics: Any = normalize.obs_rms
    for (port, mean, _), variance in zip(wanted, variances, strict=True):
        moments = statistics[key_of(port)] if keys is not None else statistics
        moments.mean = mean.astype(np.float64).reshape(port.shape)
        moments.var = (variance - epsilon).reshape(port.shape)
        moments.count = float(SEEN)
    return normalize


def clamps_log_std(graph: Graph) -> bool:
    """Whether SAC would clamp the deviation that the student samples with."""
    low, high = _LOG_STD
    return bool((graph.head.log_std < low).any() or (graph.head.log_std > high).any())


def policy_kwargs(graph: Graph, plan: Plan) -> dict[str, Any]:
    """What the constructor of the policy is given, so that the student's layers fit it."""
    hidden = [dense.bias.size for dense in graph.dense[:-1]]
    kinds = [layer.kind for layer in graph.layers if isinstance(layer, Activate)]
    critic = "qf" if plan.algorithm == "SAC" else "vf"
    kwargs: dict[str, Any] = {
        "net_arch": {"pi": hidden, critic: CRITIC[plan.algorithm]},
        "activation_fn": nn.ReLU if "relu" in kinds else nn.Tanh,
    }
    if not plan.plain:
        layer = graph.layers[0]
        assert isinstance(layer, Normalise)
        kwargs |= {
            "normalize_images": False,
            "features_extractor_class": StudentFeatures,
            "features_extractor_kwargs": {"limit": layer.limit, "channels_last": list(plan.channels_last)},
        }
    return kwargs


def _buffer_size(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> int:
    """As many transitions as SAC keeps by default, fewer where that would take more than a gigabyte."""
    inner = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    sizes = [int(np.prod(space.shape or ())) * np.dtype(space.dtype).itemsize for space in inner]
    one = 2 * sum(sizes) + 4 * int(np.prod(action_space.shape or ())) + 16
    return max(1000, min(_BUFFER, _BUFFER_BYTES // one))


def fill(policy: Any, graph: Graph) -> None:
    """Puts the student's numbers into a policy that was made with `policy_kwargs`; the caller records no gradient."""
    normalise = graph.layers[0]
    assert isinstance(normalise, Normalise)
    for module in policy.modules():  # PPO has one extractor, SAC one for each network
        if isinstance(module, StudentFeatures):
            module.mean.copy_(torch.from_numpy(normalise.mean))
            module.scale.copy_(torch.from_numpy(normalise.scale))
    *hidden, last = graph.dense
    squash, log_std = graph.head.squash, graph.head.log_std
    if not squash and graph.action.kind == "unscale":
        last, log_std = _in_environment_units(graph, last)
    *linears, head = actor_layers(policy, squash=squash)
    for linear, dense in zip(linears, hidden, strict=True):
        _set(linear, dense)
    paired = graph.head.kind == "bits" and graph.masked
    _set(head, _off_and_on(last) if paired else last)
    if graph.head.kind == "numbers":
        if squash:  # a layer there, a parameter in PPO
            policy.actor.log_std.weight.zero_()
        (policy.actor.log_std.bias if squash else policy.log_std).copy_(torch.from_numpy(log_std))


def actor_layers(policy: Any, *, squash: bool) -> list[Any]:
    """The linear modules on the way to the mean or the logits, of SAC where `squash`, else of PPO."""
    body = policy.actor.latent_pi if squash else policy.mlp_extractor.policy_net
    return [
        *(module for module in body if isinstance(module, nn.Linear)),
        policy.actor.mu if squash else policy.action_net,
    ]


def _in_environment_units(graph: Graph, dense: Dense) -> tuple[Dense, Floats]:
    """The last layer and log_std of a Gaussian in [-1, 1] (a student of TD3), for PPO, which clips to the bounds and
    does not stretch: low + (mean + 1) / 2 * (high - low), multiplied out."""
    low, high = np.asarray(graph.action.low), np.asarray(graph.action.high)
    half = 0.5 * (high - low)
    weight, bias = dense.weight * half, (dense.bias + 1.0) * half + low
    log_std = graph.head.log_std + np.log(np.maximum(half, np.finfo(np.float32).tiny))
    return Dense(weight.astype(np.float32), bias.astype(np.float32)), log_std.astype(np.float32)


def _off_and_on(dense: Dense) -> Dense:
    """MaskablePPO has two outputs for each bit, off and on: 0 and the logit."""
    weight, bias = np.zeros((len(dense.weight), 2 * dense.bias.size), np.float32), np.zeros(2 * dense.bias.size, "f4")
    weight[:, 1::2], bias[1::2] = dense.weight, dense.bias
    return Dense(weight, bias)


def _set(linear: Any, dense: Dense) -> None:
    linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(dense.weight.T)))
    linear.bias.copy_(torch.from_numpy(dense.bias))
