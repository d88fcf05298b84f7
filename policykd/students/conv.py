"""A student of images ("cnn") or of mixed observations ("multi"): normaliser, an encoder for each entry of the
observation, dense layers, a linear head.

What it computes is told by `ConvStudent.plan` (`policykd.students.encoders`): the steps of each encoder and of the
tail, each with its sizes and the names of its tensors. The torch pass below, the NumPy one and the shapes of a file all
walk these steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.loss.distributions import Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.packing import packing_from_json
from policykd.spine.types import Array, Footprint
from policykd.students.encoders import ConvPlan, normaliser_places
from policykd.students.normaliser import Normaliser
from policykd.students.steps import Activate, Conv, Dense, Step
from policykd.students.student import Parts, Student, shared_fields, with_log_std

if TYPE_CHECKING:
    from gymnasium import Space


def conv_means(plan: ConvPlan, parts: Parts, inputs: Tensor, maps: list[Tensor] | None = None) -> Tensor:
    """Logits or means [B, M] for normalised features [B, F]; gradients flow. What each convolution gives with all that
    comes behind it, [B, C, H, W], is added to `maps`: those of the first image, then of the next."""
    found = []
    for encoder in plan.encoders:
        x = inputs[:, encoder.begin : encoder.end]
        if encoder.image is not None:
            height, width, channels = encoder.image
            if encoder.channels_last:
                x = x.reshape(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
            else:
                x = x.reshape(-1, channels, height, width)
        for stage in encoder.stages:
            x = _along(stage, parts, x, plan.activation)
            if maps is not None and encoder.image is not None:
                maps.append(x)
        found.append(x.flatten(1))
    return _along(plan.tail, parts, torch.cat(found, 1) if len(found) > 1 else found[0], plan.activation)


def _along(steps: Sequence[Step], parts: Parts, x: Tensor, activation: str) -> Tensor:
    """What the steps make of rows [B, n] or maps [B, C, H, W]."""
    for step in steps:
        if isinstance(step, Activate):
            x = torch.tanh(x) if activation == "tanh" else torch.relu(x)
        elif isinstance(step, Dense):
            x = torch.addmm(parts[f"{step.name}.bias"], x, parts[f"{step.name}.weight"])
        elif isinstance(step, Conv):
            weight, bias = parts[f"{step.name}.weight"], parts[f"{step.name}.bias"]
            x = F.conv2d(x, weight, bias, step.stride, step.padding)
        else:
            x = x + _along(step.steps, parts, x, activation)
    return x


@dataclass(frozen=True, eq=False)
class ConvStudent(Student):
    """A student with convolutions. `parts`: its weights by name (`plan.shapes`); `log_std` [A] or empty."""

    normaliser: Normaliser
    plan: ConvPlan
    parts: Parts
    log_std: Tensor
    distribution: Distribution
    action_map: ActionMap
    observation_space: Space[Any]
    action_space: Space[Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator, compare=False)
    masked: bool = False

    @property
    def kind(self) -> str:
        """cnn or multi."""
        return self.plan.kind

    @property
    def footprint(self) -> Footprint:
        """Parameters, normaliser numbers and multiply-accumulates per action."""
        return self.plan.footprint

    def weights(self) -> dict[str, Tensor]:
        """Every weight and bias by its name in the file, without normaliser and log_std."""
        return dict(self.parts)

    def architecture(self) -> dict[str, Any]:
        """The header's `architecture`, without `kind` and `normaliser_limit`."""
        return self.plan.to_json()

    def to(self, device: torch.device | str) -> ConvStudent:
        """The same student on another device."""
        parts = {name: part.to(device) for name, part in self.parts.items()}
        generator = torch.Generator(device=device)
        return replace(self, parts=parts, log_std=self.log_std.to(device), generator=generator)

    @torch.no_grad()
    def distribution_params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [B, P] for packed raw observations [B, *packing.shape]."""
        means = conv_means(self.plan, self.parts, self.normaliser.apply(self.packing.tensor_features(observation)))
        return with_log_std(means, self.log_std)

    @classmethod
    def from_artifact(cls, tensors: dict[str, Array], document: dict[str, Any], device: str = "cpu") -> ConvStudent:
        """The inverse of `to_artifact`; shapes were checked by the loader."""
        packing = packing_from_json(document["observation_space"])
        plan = ConvPlan.from_json(document["architecture"], packing)
        parts = {name: torch.tensor(tensors[name], device=device) for name in plan.shapes}
        fields = shared_fields(tensors, document, device)
        normaliser = replace(fields["normaliser"], places=normaliser_places(packing))
        return cls(plan=plan, parts=parts, **{**fields, "normaliser": normaliser})
