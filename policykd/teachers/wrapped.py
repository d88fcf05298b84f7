"""A policy object of stable-baselines3 as a network: for features extractors and policy classes of the user's own.

Its forward pass runs the user's code. Everything else (normaliser, actions, labels) is that of every other teacher.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policykd.loss.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    SquashedDiagGaussian,
)
from policykd.spine.errors import InputError
from policykd.spine.spaces import action_map
from policykd.spine.types import Footprint
from policykd.teachers.build import FIXED_STD
from policykd.teachers.networks import Fingerprint

_PROBED = 8  # observations on which actions are compared with the policy's own


@dataclass(frozen=True)
class PolicyNetwork:
    """`root` is the part of the policy that acts, on evaluation mode; `forward(root, observation)` gives parameters
    [B, P] for observations [B, *O] that are normalised already."""

    root: Any
    forward: Callable[[Any, Tensor], Tensor]
    distribution: Distribution
    kind: Literal["policy", "value", "deterministic"]
    unit_actions: bool
    sizes: tuple[tuple[int, int], ...]
    params: int
    macs: int

    def __call__(self, leaves: Sequence[Tensor]) -> Tensor:
        """Parameters [B, P], float32, for the one leaf [B, *O]."""
        (observation,) = leaves
        return self.forward(self.root, observation).float()

    @property
    def adds_start(self) -> bool:
        """As stable-baselines3, it sends 0, 1 ... whatever the space's `start`."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return torch.device(self.root.device)

    def footprint(self, constants: int) -> Footprint:
        """What acting by the mode costs, with so many constants in the normaliser."""
        return Footprint(self.params, constants, self.macs)

    def to(self, device: torch.device) -> PolicyNetwork:
        """A copy on `device`."""
        from dataclasses import replace

        return replace(self, root=_copied(self.root, "teacher").to(device))

    def fingerprint(self) -> Fingerprint:
        """A running sha256 over the names of the modules and every tensor of the part that acts."""
        digest = Fingerprint()
        for name, module in self.root.named_modules():
            digest.add_text(f"{name} {type(module).__module__}.{type(module).__qualname__}")
        for name, tensor in self.root.state_dict().items():
            digest.add_text(name).add_tensor(tensor)
        return digest


def wrap(policy: Any, name: str) -> PolicyNetwork:
    """A copy of the policy as a network; InputError, in one line, for one that does not act as those of
    stable-baselines3 do: other observations, other distributions, recurrent or masked policies."""
    if hasattr(policy, "lstm_actor") or not isinstance(getattr(policy, "observation_space", None), spaces.Box):
        raise _unsupported(policy, name, "expected Box observations and a policy without memory")
    if len(policy.observation_space.shape) == 3 and policy.observation_space.dtype == np.uint8:
        raise _unsupported(policy, name, "image observations are not supported yet")
    part, forward, kind = _way(policy, name)
    root = _copied(part, name)
    distribution, unit = _distribution(policy, kind, name)
    sizes, params, macs = _measured(root, forward, policy.observation_space)
    network = PolicyNetwork(root, forward, distribution, kind, unit, sizes, params, macs)
    _check(network, policy, name)
    return network


def _way(policy: Any, name: str) -> tuple[Any, Callable[[Any, Tensor], Tensor], Any]:
    """The part of the policy that acts, its way to the parameters, and its kind."""
    from stable_baselines3.common.policies import ActorCriticPolicy

    actor = getattr(policy, "actor", None)
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
    raise _unsupported(policy, name, "expected an actor-critic policy, an actor, or a Q-network")


def _call(root: Any, observation: Tensor) -> Tensor:
    values = root(observation)
    assert isinstance(values, Tensor)
    return values


def _quantiles(root: Any, observation: Tensor) -> Tensor:
    return _call(root, observation).mean(dim=1)


def _deterministic(root: Any, observation: Tensor) -> Tensor:
    mean = _call(root, observation)
    return torch.cat([mean, torch.full_like(mean, math.log(FIXED_STD))], -1)


def _squashed(root: Any, observation: Tensor) -> Tensor:
    mean, log_std, gsde = root.get_action_dist_params(observation)
    if gsde:
        normal = root.action_dist.proba_distribution(mean, log_std, **gsde).distribution
        mean, log_std = normal.mean, normal.stddev.log()
    return torch.cat([mean, log_std], -1)


def _actor_critic(root: Any, observation: Tensor) -> Tensor:
    inner = root.get_distribution(observation).distribution
    if isinstance(inner, list):
        return torch.cat([branch.logits for branch in inner], -1)
    if isinstance(inner, torch.distributions.Normal):
        return torch.cat([inner.mean, inner.stddev.log()], -1)
    logits = inner.logits
    assert isinstance(logits, Tensor)
    return logits


def _distribution(policy: Any, kind: str, name: str) -> tuple[Distribution, bool]:
    """The layout of the parameters, and whether actions lie in [-1, 1]."""
    space = policy.action_space
    if np.any(getattr(space, "start", 0)):
        raise _unsupported(policy, name, "expected actions that start at 0")
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n)), False
    if isinstance(space, spaces.MultiDiscrete) and kind == "policy":
        return MultiCategorical(tuple(int(n) for n in space.nvec.ravel())), False
    if isinstance(space, spaces.MultiBinary) and kind == "policy":
        return Bernoulli(math.prod(space.shape)), False
    if not isinstance(space, spaces.Box):
        raise _unsupported(policy, name, f"actions are {type(space).__name__}")
    dim, unit = math.prod(space.shape), bool(policy.squash_output)
    squashed = unit and kind == "policy"
    return (SquashedDiagGaussian(dim) if squashed else DiagGaussian(dim)), unit


def _copied(root: Any, name: str) -> Any:
    """A copy on evaluation mode that nothing trains, without optimizers and without the last batch's distribution,
    whose tensors belong to a graph and cannot be copied."""
    memo: dict[int, Any] = {}
    for module in root.modules():
        if getattr(module, "optimizer", None) is not None:
            memo[id(module.optimizer)] = None
        last = getattr(module, "action_dist", None)
        if last is not None:
            bare = copy.copy(last)
            for key, value in vars(bare).items():
                first = value[0] if isinstance(value, list) and value else value
                if isinstance(first, Tensor | torch.distributions.Distribution):
                    setattr(bare, key, None)
            memo[id(last)] = bare
    try:
        copied = copy.deepcopy(root, memo)
    except Exception as error:
        raise InputError(
            f"{name}: {type(root).__name__} cannot be copied ({type(error).__name__}): keep graph tensors out of it"
        ) from error
    copied.set_training_mode(False)
    return copied.requires_grad_(False)


def _measured(
    root: Any, forward: Callable[[Any, Tensor], Tensor], space: spaces.Box
) -> tuple[tuple[tuple[int, int], ...], int, int]:
    """(inputs, outputs) of the dense layers, parameters and multiply-accumulates of the modules that one observation
    goes through; the spread (log_std) is not needed to act by the mode."""
    called: dict[nn.Module, int] = {}
    with _watched(root, called), torch.no_grad():
        forward(root, torch.zeros((1, *space.shape), device=root.device))
    sizes = tuple((m.in_features, m.out_features) for m in called if isinstance(m, nn.Linear))
    own = {parameter for module in called for parameter in module.parameters(recurse=False)}
    return sizes, sum(parameter.numel() for parameter in own), sum(called.values())


@contextmanager
def _watched(root: nn.Module, called: dict[nn.Module, int]) -> Iterator[None]:
    """Counts into `called` the multiply-accumulates of each module that is called, in the order of the calls."""

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        weights = [parameter for parameter in module.parameters(recurse=False) if parameter.dim() > 1]
        positions = 1
        if weights and isinstance(output, Tensor) and isinstance(module, nn.Linear):
            positions = output.numel() // module.out_features
        elif weights and isinstance(output, Tensor) and output.dim() > 2:
            positions = output[0, 0].numel()  # of a convolution
        called[module] = called.get(module, 0) + positions * sum(weight.numel() for weight in weights)

    watched = [m for name, m in root.named_modules() if name and name.split(".")[0] != "log_std"]
    handles = [module.register_forward_hook(count) for module in watched]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(network: PolicyNetwork, policy: Any, name: str) -> None:
    """InputError when the policy's own `predict` does something else than take the mode of these parameters."""
    space = copy.deepcopy(policy.observation_space)
    space.seed(0)
    observations = np.stack([space.sample() for _ in range(_PROBED)])
    with torch.no_grad():
        params = network([torch.from_numpy(observations).to(network.device)])
    wide = network.distribution.n_params
    if params.shape != (_PROBED, wide):
        raise _unsupported(policy, name, f"its parameters have shape {tuple(params.shape)}, expected (B, {wide})")
    ours = action_map(policy.action_space, unscale=network.unit_actions)(
        network.distribution.mode(params).cpu().numpy()
    )
    theirs, _ = network.root.predict(observations, deterministic=True)
    if not np.allclose(ours, theirs, atol=1e-5):
        raise _unsupported(policy, name, "its predict does not take the mode of its distribution")


def _unsupported(policy: Any, name: str, why: str) -> InputError:
    policy_class = f"{type(policy).__module__}.{type(policy).__qualname__}"
    return InputError(f"{name}: policy class {policy_class!r} is not supported: {why}; train with MlpPolicy")
