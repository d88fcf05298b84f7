"""One student for several tasks: an MLP whose input is all tasks' inputs side by side and a one for the task, and whose
output is all their heads. A task alone sees a slice of it, which is an ordinary MLP: its rows of the first layer, with
the task's row as a bias, the trunk that all share, and its columns of the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.loss.heads import Heads
from policykd.students.family import Family
from policykd.students.spec import Activation, MemberSpec


class Joint:
    """The family that learns all tasks; `sizes`: how many inputs each task has."""

    def __init__(
        self,
        specs: Sequence[MemberSpec],
        sizes: Sequence[int],
        heads: Heads,
        activation: Activation,
        root_seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.heads, self._ends = heads, [0, *accumulate(sizes)]
        layout = cast("Distribution", heads)  # a family asks it for sizes alone; `HeadLoss` takes it apart
        n_inputs = self._ends[-1] + len(sizes)
        self.family = Family(specs, n_inputs, layout, activation=activation, root_seed=root_seed, device=device)

    def onto(self, task: int, own: Family) -> None:
        """Writes the task's slice into the family of that task, which has the same members."""
        with torch.no_grad():
            for member in range(len(own)):
                parts = [part for pair in self.slice_of(task, member) for part in pair]
                spread = self.family.member_log_std(member)[self.heads.spreads[task]]
                for places, part in zip(own.places(member), [*parts, spread], strict=True):
                    own.flat[places] = part.reshape(-1)

    def slice_of(self, task: int, member: int) -> list[tuple[Tensor, Tensor]]:
        """Weights [in, out] and biases [out] of one task's slice of a member."""
        layers = self.family.member_layers(member)
        weight, bias = layers[0]
        layers[0] = weight[self._ends[task] : self._ends[task + 1]], bias + weight[self._ends[-1] + task]
        weight, bias = layers[-1]
        columns = self.heads.means[task]
        layers[-1] = weight[:, columns], bias[columns]
        return layers

    def start_log_std(self, task: int, own: Family) -> None:
        """Takes the spread of a task's own family, where it starts at its teacher's."""
        self.family.log_std[..., self.heads.spreads[task]] = own.log_std
