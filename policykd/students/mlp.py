"""One student: normaliser, dense layers, distribution, action map. Raw observations in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from policykd.loss.acting import predict
from policykd.loss.distributions import Distribution, distribution_from_json
from policykd.spine.actions import ActionMap
from policykd.spine.packing import Packing, packing_of
from policykd.spine.spaces import decode_space, encode_space
from policykd.spine.types import Array, Footprint
from policykd.students.family import Activation
from policykd.students.normaliser import Normaliser

if TYPE_CHECKING:
    from gymnasium import Space


@dataclass(frozen=True, eq=False)
class MlpStudent:
    """A multilayer perceptron that acts. `layers`: (weight [in, out], bias [out]) each; `log_std` [A] or empty."""

    normaliser: Normaliser
    layers: tuple[tuple[Tensor, Tensor], ...]
    log_std: Tensor
    activation: Activation
    distribution: Distribution
    action_map: ActionMap
    observation_space: Space[Any]
    action_space: Space[Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator, compare=False)
    masked: bool = False  # learned with action masks, and needs them to act

    @cached_property
    def packing(self) -> Packing:
        """How observations become one array, and its features."""
        return packing_of(self.observation_space)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.log_std.device

    @property
    def footprint(self) -> Footprint:
        """Parameters, normaliser numbers and multiply-accumulates per action."""
        macs = sum(w.numel() for w, _ in self.layers)
        return Footprint(macs + sum(b.numel() for _, b in self.layers), 2 * len(self.normaliser.mean), macs)

    def to(self, device: torch.device | str) -> MlpStudent:
        """The same student on another device."""
        from dataclasses import replace

        layers = tuple((w.to(device), b.to(device)) for w, b in self.layers)
        generator = torch.Generator(device=device)
        return replace(self, layers=layers, log_std=self.log_std.to(device), generator=generator)

    @torch.no_grad()
    def distribution_params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [B, P] for packed raw observations [B, *packing.shape]."""
        x = self.normaliser.apply(self.packing.tensor_features(observation))
        for weight, bias in self.layers[:-1]:
            x = torch.addmm(bias, x, weight)
            x = torch.tanh(x) if self.activation == "tanh" else torch.relu(x)
        weight, bias = self.layers[-1]
        x = torch.addmm(bias, x, weight)
        return torch.cat([x, self.log_std.expand(len(x), -1)], -1) if len(self.log_std) else x

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions for one observation or a batch, as `predict` of stable-baselines3 does; no state.

        `action_masks`, [n] or [B, n] in MaskablePPO's layout, forbids actions.
        """
        return predict(self, observation, deterministic, self.generator, action_masks), state

    def seed(self, seed: int) -> None:
        """Seeds the draws of stochastic actions."""
        self.generator.manual_seed(seed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process as arrays: torch would hold a file open for every tensor."""
        fields = {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}
        arrays = [(w.cpu().numpy(), b.cpu().numpy()) for w, b in self.layers]
        more = {"layers": arrays, "log_std": self.log_std.cpu().numpy()}
        del fields["generator"]
        return _received, ({**fields, **more},)

    def to_artifact(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Tensors and header document for `save_artifact`."""
        tensors: dict[str, Array] = {"normaliser.mean": self.normaliser.mean, "normaliser.scale": self.normaliser.scale}
        for k, (weight, bias) in enumerate(self.layers):
            tensors[f"layers.{k}.weight"] = weight.cpu().numpy()
            tensors[f"layers.{k}.bias"] = bias.cpu().numpy()
        if len(self.log_std):
            tensors["log_std"] = self.log_std.cpu().numpy()
        footprint = self.footprint
        document = {
            "architecture": {
                "kind": "mlp",
                "activation": self.activation,
                "layers": [list(w.shape) for w, _ in self.layers],
                "normaliser_limit": self.normaliser.limit,
            },
            "observation_space": encode_space(self.observation_space),
            "action_space": encode_space(self.action_space),
            "distribution": self.distribution.to_json(),
            "action_map": self.action_map.to_json(),
            "params": footprint.params,
            "constants": footprint.constants,
            "macs": footprint.macs,
            "provenance": self.provenance,
        }
        if self.masked:
            document["masked"] = True
        return tensors, document

    @classmethod
    def from_artifact(cls, tensors: dict[str, Array], document: dict[str, Any], device: str = "cpu") -> MlpStudent:
        """The inverse of `to_artifact`; shapes were checked by the loader."""
        architecture = document["architecture"]
        moved = {name: torch.from_numpy(np.array(value)).to(device) for name, value in tensors.items()}
        count = len(architecture["layers"])
        return cls(
            normaliser=Normaliser(
                tensors["normaliser.mean"], tensors["normaliser.scale"], float(architecture["normaliser_limit"])
            ),
            layers=tuple((moved[f"layers.{k}.weight"], moved[f"layers.{k}.bias"]) for k in range(count)),
            log_std=moved.get("log_std", torch.zeros(0, device=device)),
            activation=architecture["activation"],
            distribution=distribution_from_json(document["distribution"]),
            action_map=ActionMap.from_json(document["action_map"]),
            observation_space=decode_space(document["observation_space"]),
            action_space=decode_space(document["action_space"]),
            provenance=document["provenance"],
            generator=torch.Generator(device=device),
            masked=document.get("masked", False) is True,
        )


def _received(fields: dict[str, Any]) -> MlpStudent:
    """The student that another process sent, on the CPU."""
    layers = tuple((torch.from_numpy(w), torch.from_numpy(b)) for w, b in fields["layers"])
    return MlpStudent(**{**fields, "layers": layers, "log_std": torch.from_numpy(fields["log_std"])})
