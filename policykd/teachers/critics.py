"""What a teacher's critics say of a state: read out of the same weights as its policy, built when first asked for.

Values are in the units of the rewards that the teacher was trained on: where VecNormalize scaled them, in scaled ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from policykd.teachers.extractors import Extractor
from policykd.teachers.features import extractor_of
from policykd.teachers.modelspec import ACTOR_CRITIC_ALGOS, MASKABLE_ALGOS, ModelSpec
from policykd.teachers.networks import Critic, Layer, moved
from policykd.teachers.tensors import dense, ended, hidden, mismatch

_TWINS = ("sac", "td3", "ddpg", "crossq", "tqc")
_VALUE_PARTS = (
    "features_extractor.",
    "vf_features_extractor.",
    "mlp_extractor.shared_net.",
    "mlp_extractor.value_net.",
    "value_net.",
)


def critic_of(spec: ModelSpec) -> Critic | None:
    """The critic that the model's weights hold; None where they hold none (ARS, an actor alone), and for a memory."""
    if spec.algo in (*ACTOR_CRITIC_ALGOS, *MASKABLE_ALGOS) and "value_net.weight" in spec.weights:
        return StateValue(_only(spec, _VALUE_PARTS))
    if spec.algo in ("dqn", "qrdqn"):
        return BestAction()
    if spec.algo in _TWINS and any(key.startswith("critic.qf0.") for key in spec.weights):
        return ActionValue(_only(spec, ("actor.features_extractor.", "critic.")))
    return None


@dataclass(frozen=True)
class BestAction:
    """max over actions of Q(s, a), DQN's and QR-DQN's (of its mean over quantiles): the network's own outputs."""

    def __call__(self, leaves: Sequence[Tensor], params: Tensor) -> Tensor:
        """[B] for Q-values `params` [B, A]."""
        return params.max(dim=-1).values

    def to(self, device: torch.device) -> BestAction:
        """Itself: it holds nothing."""
        return self


@dataclass(frozen=True)
class Built:
    """Dense layers (the last one linear) behind an extractor of their own."""

    extractor: Extractor
    nets: tuple[tuple[Layer, ...], ...]

    def outputs(self, leaves: Sequence[Tensor], beside: Tensor | None = None) -> Tensor:
        """[B, nets, outputs] of the features of the leaves, with `beside` [B, A] behind them."""
        features = self.extractor(leaves)
        features = features if beside is None else torch.cat([features, beside], dim=1)
        found = []
        for net in self.nets:
            x = features
            for layer in net:
                x = layer(x)
            found.append(x)
        return torch.stack(found, dim=1)


@dataclass(frozen=True)
class _Read:
    """A critic whose tensors are made when it is first asked. `spec` holds the weights of the critics alone."""

    spec: ModelSpec
    device: str = "cpu"

    def _placed(self, extractor: Extractor, nets: list[list[Layer]], inputs: int) -> Built:
        """The parts on the device, if each layer takes what the one before gives."""
        for net in nets:
            width = inputs
            for layer in net:
                if layer.sizes[0] != width:
                    raise mismatch(
                        self.spec, f"a layer of a critic takes {layer.sizes[0]} inputs, but is given {width}"
                    )
                width = layer.sizes[1]
        where = torch.device(self.device)
        parts = tuple(moved(part, where) for part in extractor.parts)
        return Built(Extractor(parts), tuple(tuple(moved(layer, where) for layer in net) for net in nets))


@dataclass(frozen=True)
class StateValue(_Read):
    """V(s) of PPO, A2C, TRPO and MaskablePPO."""

    @cached_property
    def _built(self) -> Built:
        own = "vf_features_extractor."  # the shared one's weights again, or a critic's own
        prefix = own if any(key.startswith(own) for key in self.spec.weights) else "features_extractor."
        extractor = extractor_of(self.spec, prefix)
        body = [*hidden(self.spec, "mlp_extractor.shared_net"), *hidden(self.spec, "mlp_extractor.value_net")]
        return self._placed(extractor, [[*body, dense(self.spec, "value_net")]], extractor.size)

    def __call__(self, leaves: Sequence[Tensor], params: Tensor) -> Tensor:
        """[B]; `params` play no part."""
        return self._built.outputs(leaves)[:, 0, 0]

    def to(self, device: torch.device) -> StateValue:
        """The same on another device."""
        return StateValue(self.spec, str(device))


@dataclass(frozen=True)
class ActionValue(_Read):
    """Q(s, mu(s)) at the policy's mode: the least of the critics, as the targets of SAC, TD3, DDPG and CrossQ are made;
    for TQC the mean over critics and quantiles, as its actor is trained. SAC's entropy bonus is not added."""

    @cached_property
    def _built(self) -> Built:
        spec = self.spec
        own = any(key.startswith("critic.features_extractor.") for key in spec.weights)
        extractor = extractor_of(spec, "critic.features_extractor." if own else "actor.features_extractor.")
        names = sorted({key.split(".")[1] for key in spec.weights if key.startswith("critic.qf")})
        nets = [ended(spec, hidden(spec, f"critic.{name}")) for name in names]
        return self._placed(extractor, nets, extractor.size + math.prod(spec.action_space.shape or ()))

    def __call__(self, leaves: Sequence[Tensor], params: Tensor) -> Tensor:
        """[B]; `params` [B, 2A] begin with the mean."""
        mean = params[:, : params.shape[1] // 2]
        squashed = self.spec.algo in ("sac", "tqc", "crossq")
        found = self._built.outputs(leaves, torch.tanh(mean) if squashed else mean)
        return found.mean(dim=(1, 2)) if self.spec.algo == "tqc" else found[..., 0].min(dim=1).values

    def to(self, device: torch.device) -> ActionValue:
        """The same on another device."""
        return ActionValue(self.spec, str(device))


def _only(spec: ModelSpec, prefixes: tuple[str, ...]) -> ModelSpec:
    return replace(spec, weights={key: value for key, value in spec.weights.items() if key.startswith(prefixes)})
