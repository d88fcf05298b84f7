"""From the facts of a model (`ModelSpec`) to its network: one builder per kind of policy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policykd.loss.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    SquashedDiagGaussian,
)
from policykd.spine.errors import InputError
from policykd.spine.spaces import describe_space
from policykd.teachers.extractors import Extractor
from policykd.teachers.features import extractor_of
from policykd.teachers.maskable import PairedLogits, has_paired_bits
from policykd.teachers.modelspec import ACTOR_CRITIC_ALGOS, MASKABLE_ALGOS, ModelSpec
from policykd.teachers.networks import (
    ConstantStd,
    Dense,
    GsdeStd,
    Head,
    LinearStd,
    Logits,
    Network,
    QuantileMean,
    Renorm,
)
from policykd.teachers.tensors import dense, ended, hidden, mismatch, tensor

FIXED_STD = 0.1  # of a teacher without a distribution, as a fraction of half the action range


def build_network(spec: ModelSpec) -> Network:
    """The network of the model; InputError where its weights do not fit what the model says of itself."""
    extractor = extractor_of(spec)
    if spec.algo in (*ACTOR_CRITIC_ALGOS, *MASKABLE_ALGOS):
        return _actor_critic(spec, extractor)
    if spec.algo == "dqn":
        return _values(spec, extractor, "q_net.q_net")
    if spec.algo == "qrdqn":
        return _values(spec, extractor, "quantile_net.quantile_net")
    if spec.algo in ("sac", "tqc", "crossq"):
        return _squashed_actor(spec, extractor)
    if spec.algo in ("td3", "ddpg"):
        return _deterministic(spec, extractor, "actor.mu", squash=True)
    return _ars(spec, extractor)


def _described(space: spaces.Space[Any]) -> str:
    """The space in one short line."""
    return " ".join(describe_space(space).split())[:120]


def _actor_critic(spec: ModelSpec, extractor: Extractor) -> Network:
    latent = hidden(spec, "mlp_extractor.shared_net") + hidden(spec, "mlp_extractor.policy_net")
    output = dense(spec, "action_net")
    distribution = _distribution(spec)
    outputs = distribution.n_means * (2 if has_paired_bits(spec) else 1)
    layers = _checked(spec, extractor, [*latent, output], outputs)
    if isinstance(distribution, DiagGaussian):
        head, squash = _actor_critic_gaussian(spec, output)
        if squash:
            distribution = SquashedDiagGaussian(distribution.dim)
    else:
        head, squash = PairedLogits() if has_paired_bits(spec) else Logits(), False
    return Network(extractor, layers, head, distribution, "policy", squash)


def _actor_critic_gaussian(spec: ModelSpec, output: Dense) -> tuple[Head, bool]:
    """The head behind `output`, whose sizes are (width of the latent, actions), and whether actions are squashed."""
    log_std = tensor(spec, "log_std")
    if log_std.ndim == 1:
        if log_std.shape[0] != output.sizes[1]:
            raise mismatch(spec, f"log_std has shape {tuple(log_std.shape)}, expected {output.sizes[1:]}")
        return ConstantStd(log_std), False
    if any(key.startswith("sde_features_extractor.") for key in spec.weights):
        raise InputError(f"{spec.name}: has a separate gSDE network, which is not supported: train with the default")
    return GsdeStd(_gsde_std(spec, log_std, output)), bool(spec.options.get("squash_output", False))


def _values(spec: ModelSpec, extractor: Extractor, prefix: str) -> Network:
    if not isinstance(spec.action_space, spaces.Discrete):
        raise mismatch(spec, f"actions are {_described(spec.action_space)}, expected Discrete for {spec.algo}")
    n_actions = int(spec.action_space.n)
    layers = hidden(spec, prefix)
    if not layers:
        raise mismatch(spec, f"no weights {prefix}.0.weight in policy.pth")
    outputs = layers[-1].sizes[1]
    layers = ended(spec, layers)
    head: Head = Logits()
    if spec.algo == "qrdqn":
        if outputs % n_actions:
            raise mismatch(spec, f"{outputs} quantile outputs for {n_actions} actions")
        head = QuantileMean(outputs // n_actions, n_actions)
    expected = outputs if spec.algo == "qrdqn" else n_actions
    checked = _checked(spec, extractor, layers, expected)
    return Network(extractor, checked, head, Categorical(n_actions), "value", False)


def _squashed_actor(spec: ModelSpec, extractor: Extractor) -> Network:
    distribution = SquashedDiagGaussian(_action_dim(spec))
    latent = hidden(spec, "actor.latent_pi")
    clipped = "actor.mu.0.weight" in spec.weights and "actor.log_std" in spec.weights
    output = dense(spec, "actor.mu.0" if clipped else "actor.mu")
    layers = _checked(spec, extractor, [*latent, output], distribution.dim)
    head: Head
    if "actor.log_std" in spec.weights:
        clip = float(spec.options.get("clip_mean", 2.0)) if clipped else 0.0
        head = GsdeStd(_gsde_std(spec, tensor(spec, "actor.log_std"), output), clip)
    else:
        spread = dense(spec, "actor.log_std")
        if spread.bias is None or spread.sizes != output.sizes:
            raise mismatch(spec, f"actor.log_std has sizes {spread.sizes}, expected {output.sizes}")
        head = LinearStd(spread.weight, spread.bias)
    return Network(extractor, layers, head, distribution, "policy", True)


def _deterministic(spec: ModelSpec, extractor: Extractor, prefix: str, *, squash: bool) -> Network:
    """A mean with a fixed standard deviation, in the units of the mean."""
    distribution = DiagGaussian(_action_dim(spec))
    layers = hidden(spec, prefix) or [dense(spec, prefix)]
    layers = ended(spec, layers, "tanh" if squash else "identity")
    head = ConstantStd(fixed_log_std(spec.action_space, unit=squash))
    checked = _checked(spec, extractor, layers, distribution.dim)
    return Network(extractor, checked, head, distribution, "deterministic", squash)


def _ars(spec: ModelSpec, extractor: Extractor) -> Network:
    if not isinstance(spec.action_space, spaces.Discrete):
        default = not spec.policy.endswith("ARSLinearPolicy")
        squash = bool(spec.options.get("squash_output", default))
        return _deterministic(spec, extractor, "action_net", squash=squash)
    layers = hidden(spec, "action_net") or [dense(spec, "action_net")]
    layers = ended(spec, layers)
    n_actions = int(spec.action_space.n)
    checked = _checked(spec, extractor, layers, n_actions)
    return Network(extractor, checked, Logits(), Categorical(n_actions), "value", False)


def fixed_log_std(box: spaces.Space[Any], *, unit: bool) -> Tensor:
    """log_std [A] of a teacher without a spread of its own; `unit` for one that acts in [-1, 1]."""
    assert isinstance(box, spaces.Box)  # the caller has refused every other
    half = (box.high.astype(np.float64) - box.low).ravel() / 2
    std = np.where(np.isfinite(half) & (half > 0) & (not unit), half, 1.0) * FIXED_STD
    return torch.log(torch.as_tensor(std, dtype=torch.float32))


def _distribution(spec: ModelSpec) -> Distribution:
    space = spec.action_space
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(tuple(int(n) for n in space.nvec.ravel()))
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(math.prod(space.shape))
    return DiagGaussian(_action_dim(spec))


def _action_dim(spec: ModelSpec) -> int:
    if not isinstance(spec.action_space, spaces.Box):
        raise mismatch(spec, f"actions are {_described(spec.action_space)}, expected Box for {spec.algo}")
    return math.prod(spec.action_space.shape)


def _gsde_std(spec: ModelSpec, log_std: Tensor, output: Dense) -> Tensor:
    """The standard deviations [L, A] of the exploration matrix, as stable-baselines3's get_std computes them.

    `output` is the layer from the latent (L) to the means (A). One deviation for all actions stays one in memory.
    """
    width, actions = output.sizes
    if tuple(log_std.shape) not in ((width, actions), (width, 1)):
        found = tuple(log_std.shape)
        raise mismatch(spec, f"log_std has shape {found}, expected {(width, actions)} or {(width, 1)}")
    if spec.options.get("use_expln", False):
        below = torch.exp(log_std) * (log_std <= 0)
        safe = log_std * (log_std > 0) + 1e-6
        std = below + (torch.log1p(safe) + 1.0) * (log_std > 0)
    else:
        std = torch.exp(log_std)
    if not torch.isfinite(std**2).all():
        raise mismatch(spec, "log_std is so large that its exponential is infinite")
    return std.expand(-1, actions)


def _checked(
    spec: ModelSpec, extractor: Extractor, layers: list[Dense | Renorm], outputs: int
) -> tuple[Dense | Renorm, ...]:
    """The layers, if each takes what the one before gives."""
    width = extractor.size
    for layer in layers:
        if layer.sizes[0] != width:
            raise mismatch(spec, f"a layer takes {layer.sizes[0]} inputs, but is given {width}")
        width = layer.sizes[1]
    if width != outputs:
        raise mismatch(spec, f"the network has {width} outputs, but the action space needs {outputs}")
    return tuple(layers)
