"""A policy object of stable-baselines3 as a network: for features extractors and policy classes of the user's own.

Its forward pass runs the user's code. Everything else (normaliser, actions, labels) is that of every other teacher.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from policykd.spine.errors import InputError, brief
from policykd.spine.packing import Packing, packing_of
from policykd.spine.spaces import action_map
from policykd.spine.types import Footprint, State
from policykd.teachers.networks import Fingerprint
from policykd.teachers.probes import probes_of
from policykd.teachers.ways import first_step, params_of, unsupported, way_of

_PROBED = 8  # observations on which actions are compared with the policy's own


@dataclass(frozen=True)
class PolicyNetwork:
    """`root` is the part of the policy that acts, on evaluation mode; `forward(root, observation)` gives parameters
    [B, P] for observations that are normalised already: a tensor [B, *O], or for a Dict one for each of its `keys`."""

    root: Any
    forward: Callable[[Any, Any], Tensor]
    keys: tuple[str, ...]
    distribution: Distribution
    kind: Literal["policy", "value", "deterministic"]
    unit_actions: bool
    sizes: tuple[tuple[int, int], ...]
    params: int
    macs: int

    def __call__(self, leaves: Sequence[Tensor]) -> Tensor:
        """Parameters [B, P], float32, for the leaves [B, *O] in the order of the space."""
        return self.forward(self.root, self.observed(leaves)).float()

    def observed(self, leaves: Sequence[Any]) -> Any:
        """The leaves as the policy takes its observations."""
        return dict(zip(self.keys, leaves, strict=True)) if self.keys else leaves[0]

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
        return replace(self, root=_copied(self.root, "teacher").to(device))

    def fingerprint(self) -> Fingerprint:
        """A running sha256 over the names of the modules and every tensor of the part that acts."""
        digest = Fingerprint()
        for name, module in self.root.named_modules():
            digest.add_text(f"{name} {type(module).__module__}.{type(module).__qualname__}")
        for name, tensor in self.root.state_dict().items():
            digest.add_text(name).add_tensor(tensor)
        return digest


@dataclass(frozen=True)
class RecurrentPolicyNetwork(PolicyNetwork):
    """A policy of RecurrentPPO; `forward` gives the parameters of an episode's first observation."""

    @property
    def memory(self) -> tuple[int, int]:
        """Layers of the LSTM that acts, and the numbers in one layer's state."""
        return int(self.root.lstm_actor.num_layers), int(self.root.lstm_actor.hidden_size)

    def step(self, leaves: Sequence[Tensor], state: State, start: Tensor) -> tuple[Tensor, State]:
        """Parameters [B, P] and the next state, for the leaves [B, *O] of normalised observations."""
        found, state = self.root.get_distribution(self.observed(leaves), state, start)
        return params_of(found).float(), state


def wrap(policy: Any, name: str) -> PolicyNetwork:
    """A copy of the policy as a network; InputError, in one line, for one that does not act as those of
    stable-baselines3 do."""
    part, forward, kind = way_of(policy, name)
    root = _copied(part, name)
    distribution, unit = _distribution(policy, kind, name)
    space = policy.observation_space
    keys = tuple(space.spaces) if isinstance(space, spaces.Dict) else ()
    cls = RecurrentPolicyNetwork if forward is first_step else PolicyNetwork
    network = cls(root, forward, keys, distribution, kind, unit, (), 0, 0)
    packing = packing_of(space)
    batch = _sampled(space, packing)
    seen = [torch.from_numpy(packing.leaf_of(batch, leaf)).to(network.device) for leaf in packing.leaves]
    try:
        sizes, params, macs = _measured(network, seen)
        network = replace(network, sizes=sizes, params=params, macs=macs)
        _check(network, policy, seen, name)
    except InputError:
        raise
    except Exception as error:  # the user's own code
        why = f"it raised {type(error).__name__} for observations of its space ({brief(error)})"
        raise unsupported(policy, name, why) from error
    return network


def _distribution(policy: Any, kind: str, name: str) -> tuple[Distribution, bool]:
    """The layout of the parameters, and whether actions lie in [-1, 1]."""
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n)), False
    if isinstance(space, spaces.MultiDiscrete) and kind == "policy":
        return MultiCategorical(tuple(int(n) for n in space.nvec.ravel())), False
    if isinstance(space, spaces.MultiBinary) and kind == "policy":
        return Bernoulli(math.prod(space.shape)), False
    if not isinstance(space, spaces.Box):
        raise unsupported(policy, name, f"actions are {type(space).__name__}")
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


def _sampled(space: spaces.Space[Any], packing: Packing) -> Any:
    """A packed batch of observations of the space."""
    return np.stack([packing.pack(probe) for probe in probes_of(space, _PROBED)])


def _measured(network: PolicyNetwork, seen: Sequence[Tensor]) -> tuple[tuple[tuple[int, int], ...], int, int]:
    """(inputs, outputs) of the dense layers, parameters and multiply-accumulates of the modules that one observation
    goes through; the spread (log_std) is not needed to act by the mode."""
    called: dict[nn.Module, int] = {}
    with _watched(network.root, called), torch.no_grad():
        network([leaf[:1] for leaf in seen])
    sizes = tuple((int(m.in_features), int(m.out_features)) for m in called if isinstance(m, nn.Linear))
    own = {parameter for module in called for parameter in module.parameters(recurse=False)}
    return sizes, sum(parameter.numel() for parameter in own), sum(called.values())


@contextmanager
def _watched(root: nn.Module, called: dict[nn.Module, int]) -> Iterator[None]:
    """Counts into `called` the multiply-accumulates of each module that is called, in the order of the calls."""

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        weights = [parameter for parameter in module.parameters(recurse=False) if parameter.dim() > 1]
        positions = 1
        if weights and isinstance(output, Tensor) and isinstance(module, nn.Linear):
            positions = output.numel() // int(module.out_features)  # which may be an integer of numpy
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


def _check(network: PolicyNetwork, policy: Any, seen: Sequence[Tensor], name: str) -> None:
    """InputError when the policy's own `predict` does something else than take the mode of these parameters."""
    with torch.no_grad():
        params = network(seen)
    wide = network.distribution.n_params
    if params.shape != (_PROBED, wide):
        raise unsupported(policy, name, f"its parameters have shape {tuple(params.shape)}, expected (B, {wide})")
    mapped = replace(action_map(policy.action_space, unscale=network.unit_actions), start=())
    ours = mapped(network.distribution.mode(params).cpu().numpy())
    theirs, _ = network.root.predict(network.observed([leaf.cpu().numpy() for leaf in seen]), deterministic=True)
    if not np.allclose(ours, theirs, atol=1e-5):
        raise unsupported(policy, name, "its predict does not take the mode of its distribution")
