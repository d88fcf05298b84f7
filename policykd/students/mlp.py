"""A feed-forward student: normaliser, dense layers, distribution, action map. Raw observations in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.types import Array, Footprint
from policykd.students.normaliser import Normaliser
from policykd.students.spec import Activation
from policykd.students.student import Student, shared_fields, with_log_std

if TYPE_CHECKING:
    from gymnasium import Space


@dataclass(frozen=True, eq=False)
class MlpStudent(Student):
    """A multilayer perceptron that acts. `layers`: (weight [in, out], bias [out]) each; `log_std` [A] or empty.

    `scales` [out] each, or none: the weights are whole numbers of 8 bits times these, and the file holds both.
    """

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
    scales: tuple[Tensor, ...] = ()
    kind: ClassVar[str] = "mlp"

    @property
    def footprint(self) -> Footprint:
        """Parameters, numbers of normaliser and scales, and multiply-accumulates per action."""
        macs = sum(w.numel() for w, _ in self.layers)
        constants = 2 * len(self.normaliser.mean) + sum(scale.numel() for scale in self.scales)
        return Footprint(macs + sum(b.numel() for _, b in self.layers), constants, macs)

    def to(self, device: torch.device | str) -> MlpStudent:
        """The same student on another device."""
        layers = tuple((w.to(device), b.to(device)) for w, b in self.layers)
        generator = torch.Generator(device=device)
        scales = tuple(scale.to(device) for scale in self.scales)
        return replace(self, layers=layers, scales=scales, log_std=self.log_std.to(device), generator=generator)

    @torch.no_grad()
    def distribution_params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [B, P] for packed raw observations [B, *packing.shape]."""
        x = self.normaliser.apply(self.packing.tensor_features(observation))
        for weight, bias in self.layers[:-1]:
            x = torch.addmm(bias, x, weight)
            x = torch.tanh(x) if self.activation == "tanh" else torch.relu(x)
        weight, bias = self.layers[-1]
        return with_log_std(torch.addmm(bias, x, weight), self.log_std)

    def weights(self) -> dict[str, Tensor]:
        """Every weight and bias by its name in the file, without normaliser and log_std."""
        found = dict[str, Tensor]()
        for k, (weight, bias) in enumerate(self.layers):
            found |= {f"layers.{k}.weight": weight, f"layers.{k}.bias": bias}
        for k, scale in enumerate(self.scales):
            whole = (self.layers[k][0] / scale).round().to(torch.int8)
            found |= {f"layers.{k}.weight": whole, f"layers.{k}.scale": scale}
        return found

    def architecture(self) -> dict[str, Any]:
        """The header's `architecture`, without `kind` and `normaliser_limit`."""
        weights = {"weights": "int8"} if self.scales else {}
        return {"activation": self.activation, "layers": [list(w.shape) for w, _ in self.layers], **weights}

    @classmethod
    def from_artifact(cls, tensors: dict[str, Array], document: dict[str, Any], device: str = "cpu") -> MlpStudent:
        """The inverse of `to_artifact`; shapes were checked by the loader."""
        architecture, fields = document["architecture"], shared_fields(tensors, document, device)
        held = {name: torch.tensor(value, device=device) for name, value in tensors.items()}
        count = range(len(architecture["layers"]))
        layers = tuple((held[f"layers.{k}.weight"], held[f"layers.{k}.bias"]) for k in count)
        scales = tuple(held[f"layers.{k}.scale"] for k in count) if "weights" in architecture else ()
        if scales:
            layers = tuple((w.float() * scale, b) for (w, b), scale in zip(layers, scales, strict=True))
        return cls(layers=layers, scales=scales, activation=architecture["activation"], **fields)
