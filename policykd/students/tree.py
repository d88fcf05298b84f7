"""A decision tree that acts: it compares numbers of the observation, in their own units, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.types import Array, Footprint
from policykd.students.nodes import LARGEST, Nodes
from policykd.students.normaliser import Normaliser
from policykd.students.student import Student, shared_fields, with_log_std

if TYPE_CHECKING:
    from gymnasium import Space


def no_normaliser(n_inputs: int) -> Normaliser:
    """One that leaves every number as it is."""
    return Normaliser(np.zeros(n_inputs, np.float32), np.ones(n_inputs, np.float32), LARGEST)


@dataclass(frozen=True, eq=False)
class TreeStudent(Student):
    """`nodes`: the tree, whose leaves hold log-probabilities of the actions, or means. It walks on the CPU, wherever
    `log_std` [A] (or empty) lies. `normaliser` does nothing."""

    normaliser: Normaliser
    nodes: Nodes
    log_std: Tensor
    distribution: Distribution
    action_map: ActionMap
    observation_space: Space[Any]
    action_space: Space[Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator, compare=False)
    masked: bool = False  # learned with action masks, and needs them to act
    kind: ClassVar[str] = "tree"

    @property
    def footprint(self) -> Footprint:
        """Feature and threshold of each inner node, outputs of each leaf; no multiplications."""
        return self.nodes.footprint

    def to(self, device: torch.device | str) -> TreeStudent:
        """The same student on another device."""
        return replace(self, log_std=self.log_std.to(device), generator=torch.Generator(device=device))

    def distribution_params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [B, P] for packed raw observations [B, *packing.shape]."""
        inputs = self.packing.features(observation.cpu().numpy())
        means = torch.from_numpy(self.nodes.outputs(inputs)).to(self.device)
        return with_log_std(means, self.log_std)

    def weights(self) -> dict[str, Tensor]:
        """The tree's arrays by their names in the file."""
        return {name: torch.from_numpy(values) for name, values in self.nodes.arrays().items()}

    def architecture(self) -> dict[str, Any]:
        """The header's `architecture`, without `kind` and `normaliser_limit`."""
        leaves, outputs = self.nodes.value.shape
        return {"inputs": len(self.normaliser.mean), "leaves": leaves, "outputs": outputs, "depth": self.nodes.depth}

    @classmethod
    def from_artifact(cls, tensors: dict[str, Array], document: dict[str, Any], device: str = "cpu") -> TreeStudent:
        """The inverse of `to_artifact`; shapes were checked by the loader, the tree by `NumpyTreeStudent`."""
        return cls(nodes=Nodes.from_arrays(tensors), **shared_fields(tensors, document, device))
