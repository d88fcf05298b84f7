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
from policykd.teachers.modelspec import ACTOR_CRITIC, ModelSpec
from policykd.teachers.networks import (
    ConstantStd,
    Dense,
    Encoding,
    GsdeStd,
    Head,
    LinearStd,
    Logits,
    Network,
    QuantileMean,
)

MAX_LAYERS = 64
FIXED_STD = 0.1  # of a teacher without a distribution, as a fraction of half the action range
_MAX_CHOICES = 1_000_000  # one-hot features


def build_network(spec: ModelSpec) -> Network:
    """The network of the model; InputError where its weights do not fit what the model says of itself."""
    _refuse_extractor(spec)
    _refuse_start(spec)
    policy = spec.policy.rpartition(".")[2]
    if policy == ACTOR_CRITIC:
        return _actor_critic(spec)
    if policy == "DQNPolicy":
        return _values(spec, "q_net.q_net")
    if policy == "QRDQNPolicy":
        return _values(spec, "quantile_net.quantile_net")
    if policy in ("SACPolicy", "TQCPolicy"):
        return _squashed_actor(spec)
    if policy == "TD3Policy":
        return _deterministic(spec, "actor.mu", squash=True)
    return _ars(spec)


def encoding_of(spec: ModelSpec) -> Encoding:
    """How observations become features; InputError for images, Dict and Tuple spaces."""
    space = spec.observation_space
    if isinstance(space, spaces.Box):
        if len(space.shape) == 3 and space.dtype == np.uint8:
            raise _unsupported(spec, "image observations")
        return Encoding(math.prod(space.shape))
    if isinstance(space, spaces.MultiBinary):
        return Encoding(math.prod(space.shape))
    if isinstance(space, spaces.Discrete) and int(space.start) == 0:
        nvec: tuple[int, ...] = (int(space.n),)
    elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not np.any(space.start):
        nvec = tuple(int(n) for n in space.nvec)
    else:
        raise _unsupported(spec, f"observations of {_described(space)}")
    if sum(nvec) > _MAX_CHOICES:
        raise _unsupported(spec, f"{sum(nvec)} one-hot observations")
    return Encoding(sum(nvec), nvec)


def _described(space: spaces.Space[Any]) -> str:
    """The space in one short line."""
    return " ".join(describe_space(space).split())[:120]


def _unsupported(spec: ModelSpec, what: str) -> InputError:
    return InputError(
        f"{spec.name}: {what} are not supported yet: expected a flat Box, Discrete, MultiDiscrete or MultiBinary; use "
        "a teacher on vector observations"
    )


def _refuse_extractor(spec: ModelSpec) -> None:
    learned = [key[:80] for key in spec.weights if "features_extractor." in key and not key.startswith("sde_")]
    if learned:
        raise InputError(
            f"{spec.name}: has a features extractor of its own ({learned[0]!r}), expected a plain MLP policy: distil a "
            "teacher that was trained with MlpPolicy and the default features extractor"
        )


def _refuse_start(spec: ModelSpec) -> None:
    """stable-baselines3 sends 0 ... n-1 whatever the space says, so what such a teacher meant cannot be known."""
    if np.any(getattr(spec.action_space, "start", 0)):
        raise InputError(
            f"{spec.name}: actions {_described(spec.action_space)} do not start at 0, which stable-baselines3 does "
            "not support: use a teacher whose actions start at 0"
        )


def _actor_critic(spec: ModelSpec) -> Network:
    hidden = _hidden(spec, "mlp_extractor.shared_net") + _hidden(spec, "mlp_extractor.policy_net")
    output = _single(spec, "action_net")
    distribution = _distribution(spec)
    if isinstance(distribution, DiagGaussian):
        head, squash = _actor_critic_gaussian(spec)
        if squash:
            distribution = SquashedDiagGaussian(distribution.dim)
    else:
        head, squash = Logits(), False
    return Network(encoding_of(spec), _checked(spec, [*hidden, output], distribution.n_means), head, distribution,
                   "policy", squash)  # fmt: skip


def _actor_critic_gaussian(spec: ModelSpec) -> tuple[Head, bool]:
    log_std = _tensor(spec, "log_std")
    if log_std.ndim == 1:
        return ConstantStd(log_std), False
    if any(key.startswith("sde_features_extractor.") for key in spec.weights):
        raise InputError(f"{spec.name}: has a separate gSDE network, which is not supported: train with the default")
    return GsdeStd(_gsde_std(spec, log_std)), bool(spec.options.get("squash_output", False))


def _values(spec: ModelSpec, prefix: str) -> Network:
    if not isinstance(spec.action_space, spaces.Discrete):
        raise _mismatch(spec, f"actions are {_described(spec.action_space)}, expected Discrete for {spec.algo}")
    n_actions = int(spec.action_space.n)
    layers = _hidden(spec, prefix)
    if not layers:
        raise _mismatch(spec, f"no weights {prefix}.0.weight in policy.pth")
    outputs = layers[-1].sizes[1]
    layers[-1] = Dense(layers[-1].weight, layers[-1].bias, "identity")
    head: Head = Logits()
    if spec.algo == "qrdqn":
        if outputs % n_actions:
            raise _mismatch(spec, f"{outputs} quantile outputs for {n_actions} actions")
        head = QuantileMean(outputs // n_actions, n_actions)
    expected = outputs if spec.algo == "qrdqn" else n_actions
    return Network(encoding_of(spec), _checked(spec, layers, expected), head, Categorical(n_actions), "value", False)


def _squashed_actor(spec: ModelSpec) -> Network:
    distribution = SquashedDiagGaussian(_action_dim(spec))
    hidden = _hidden(spec, "actor.latent_pi")
    head: Head
    if "actor.log_std" in spec.weights:
        clipped = "actor.mu.0.weight" in spec.weights
        output = _single(spec, "actor.mu.0" if clipped else "actor.mu")
        clip = float(spec.options.get("clip_mean", 2.0)) if clipped else 0.0
        head = GsdeStd(_gsde_std(spec, _tensor(spec, "actor.log_std")), clip)
    else:
        output = _single(spec, "actor.mu")
        spread = _single(spec, "actor.log_std")
        if spread.bias is None or spread.sizes != output.sizes:
            raise _mismatch(spec, f"actor.log_std has sizes {spread.sizes}, expected {output.sizes}")
        head = LinearStd(spread.weight, spread.bias)
    layers = _checked(spec, [*hidden, output], distribution.dim)
    return Network(encoding_of(spec), layers, head, distribution, "policy", True)


def _deterministic(spec: ModelSpec, prefix: str, *, squash: bool) -> Network:
    """A mean with a fixed standard deviation, in the units of the mean."""
    distribution = DiagGaussian(_action_dim(spec))
    layers = _hidden(spec, prefix) or [_single(spec, prefix)]
    layers[-1] = Dense(layers[-1].weight, layers[-1].bias, "tanh" if squash else "identity")
    head = ConstantStd(fixed_log_std(spec.action_space, unit=squash))
    layers_ok = _checked(spec, layers, distribution.dim)
    return Network(encoding_of(spec), layers_ok, head, distribution, "deterministic", squash)


def _ars(spec: ModelSpec) -> Network:
    if not isinstance(spec.action_space, spaces.Discrete):
        default = not spec.policy.endswith("ARSLinearPolicy")
        return _deterministic(spec, "action_net", squash=bool(spec.options.get("squash_output", default)))
    layers = _hidden(spec, "action_net") or [_single(spec, "action_net")]
    layers[-1] = Dense(layers[-1].weight, layers[-1].bias, "identity")
    n_actions = int(spec.action_space.n)
    return Network(
        encoding_of(spec), _checked(spec, layers, n_actions), Logits(), Categorical(n_actions), "value", False
    )


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
        raise _mismatch(spec, f"actions are {_described(spec.action_space)}, expected Box for {spec.algo}")
    return math.prod(spec.action_space.shape)


def _gsde_std(spec: ModelSpec, log_std: Tensor) -> Tensor:
    """The standard deviations [L, A] of the exploration matrix, as stable-baselines3's get_std computes them."""
    if log_std.ndim != 2 or log_std.shape[1] not in (1, _action_dim(spec)):
        raise _mismatch(spec, f"log_std has shape {tuple(log_std.shape)}")
    if spec.options.get("use_expln", False):
        below = torch.exp(log_std) * (log_std <= 0)
        safe = log_std * (log_std > 0) + 1e-6
        std = below + (torch.log1p(safe) + 1.0) * (log_std > 0)
    else:
        std = torch.exp(log_std)
    if not torch.isfinite(std**2).all():
        raise _mismatch(spec, "log_std is so large that its exponential is infinite")
    return std.expand(-1, _action_dim(spec)).contiguous()


def _hidden(spec: ModelSpec, prefix: str) -> list[Dense]:
    """The dense layers PREFIX.0, PREFIX.2 ... with the activation behind each; none where there are no such weights."""
    rest = [key.removeprefix(prefix + ".") for key in spec.weights if key.startswith(prefix + ".")]
    positions = {key.split(".")[0] for key in rest}
    indices = sorted(int(text) for text in positions if text.isdecimal() and len(text) < 9)
    if indices != list(range(0, 2 * len(indices), 2)) or len(indices) > MAX_LAYERS:
        raise _mismatch(spec, f"{prefix} is no plain MLP of at most {MAX_LAYERS} layers (positions {indices[:8]})")
    return [_single(spec, f"{prefix}.{index}", spec.activation) for index in indices]


def _single(spec: ModelSpec, prefix: str, activation: str = "identity") -> Dense:
    weight = _tensor(spec, f"{prefix}.weight")
    bias = _tensor(spec, f"{prefix}.bias") if f"{prefix}.bias" in spec.weights else None
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise _mismatch(spec, f"{prefix} is no dense layer (weight of shape {tuple(weight.shape)})")
    return Dense(weight, bias, activation)


def _tensor(spec: ModelSpec, key: str) -> Tensor:
    if key not in spec.weights:
        raise _mismatch(spec, f"no weights {key} in policy.pth")
    with np.errstate(over="ignore"):
        single = np.array(spec.weights[key], np.float32, copy=True)
    if not np.isfinite(single).all():
        raise _mismatch(spec, f"{key} has numbers beyond single precision")
    return torch.from_numpy(single)


def _checked(spec: ModelSpec, layers: list[Dense], outputs: int) -> tuple[Dense, ...]:
    """The layers, if each takes what the one before gives."""
    width = encoding_of(spec).size
    for layer in layers:
        if layer.sizes[0] != width:
            raise _mismatch(spec, f"a layer takes {layer.sizes[0]} inputs, but is given {width}")
        width = layer.sizes[1]
    if width != outputs:
        raise _mismatch(spec, f"the network has {width} outputs, but the action space needs {outputs}")
    return tuple(layers)


def _mismatch(spec: ModelSpec, what: str) -> InputError:
    return InputError(
        f"{spec.name}: weights and description of the {spec.algo} model differ: {what}; save the model again"
    )
