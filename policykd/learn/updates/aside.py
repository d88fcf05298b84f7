"""What a student learns aside: linear heads on its hidden layers predict what the teacher's network knows of a state.

    loss = policy loss + sum over heads of weight / (2 K) * || (h W + b) - z ||^2,       z = (y - mean y) / std y

Hints (FitNets, Romero et al. 2015, arXiv:1412.6550, eq. 3): y are K activations of a teacher's hidden layer, h W + b is
the learned regressor. Value: y is the teacher's value of the state, K = 1. Where we differ from FitNets: hints pull
beside the policy's loss and not before it (`aside.hint_rounds` lets them fall to nothing), the regressor is linear, and
targets are standardised over the labelled states, so that one weight does for all layers. The heads are no student's:
they have an optimizer state of their own, and are gone when the student is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policykd.spine.config.aside import AsideConfig
from policykd.students.family import Family


@dataclass(frozen=True)
class Target:
    """One head: the student's hidden `layer`, from 1 on; the label's `columns` that it predicts; its weight."""

    name: str
    layer: int
    columns: slice
    weight: float
    rounds: int = 0  # over which the weight falls to 0

    @property
    def size(self) -> int:
        """K, how many numbers it predicts."""
        return int(self.columns.stop - self.columns.start)

    def weight_in(self, round_index: int) -> float:
        """Its weight in a round."""
        return self.weight * max(1.0 - round_index / self.rounds, 0.0) if self.rounds else self.weight


class Aside:
    """The heads of all members: for each target and group a matrix [G, H, K] and a bias [G, 1, K]."""

    def __init__(self, family: Family, targets: Sequence[Target]) -> None:
        self.targets = tuple(targets)
        sizes = [
            (len(group.weights[0]), group.weights[target.layer].shape[1], target.size)
            for target in targets
            for group in family.groups
        ]
        total = sum(g * (h + 1) * k for g, h, k in sizes)
        self.flat, self.grad = (torch.zeros(total, device=family.device) for _ in range(2))
        self.moments = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._heads, end = list[tuple[Tensor, ...]](), 0
        for g, h, k in sizes:
            views = list[Tensor]()
            for rows in (h, 1):
                begin, end = end, end + g * rows * k
                views += [store[begin:end].view(g, rows, k) for store in (self.flat, self.grad)]
            self._heads.append(tuple(views))
        self._groups = [group.members for group in family.groups]
        self._weights = [0.0] * len(targets)
        self._mean = self._std = torch.zeros(0)
        self.unexplained: dict[str, Tensor] = {}

    def begin(self, labels: Tensor, round_index: int) -> None:
        """A round begins, with these labelled states [M, L]."""
        self._mean, self._std = labels.mean(0), labels.std(0).clamp(min=1e-6)
        self._weights = [target.weight_in(round_index) for target in self.targets]

    def pull(self, labels: Tensor, saved: Sequence[Sequence[Tensor]]) -> list[Mapping[int, Tensor]]:
        """Overwrites the heads' gradient for a mini-batch of labels [B, L] and the layer inputs that `forward_saving`
        kept; gives each group's gradient by its hidden layers [G, B, H], which the mean over the batch is part of."""
        found: list[dict[int, Tensor]] = [{} for _ in saved]
        members = self._groups[-1].stop
        for number, target in enumerate(self.targets):
            own = target.columns
            wanted = (labels[:, own] - self._mean[own]) / self._std[own]
            scale = self._weights[number] / (target.size * len(labels))
            error = labels.new_zeros(members)
            for place, layers in enumerate(saved):
                weight, d_weight, bias, d_bias = self._heads[number * len(saved) + place]
                hidden = layers[target.layer]
                gap = torch.baddbmm(bias, hidden, weight).sub_(wanted)
                error[self._groups[place]] = gap.square().mean((1, 2))
                slope = gap.mul_(scale)
                torch.bmm(hidden.transpose(1, 2), slope, out=d_weight)
                torch.sum(slope, 1, keepdim=True, out=d_bias)
                back = torch.bmm(slope, weight.transpose(1, 2))
                before = found[place].get(target.layer)
                found[place][target.layer] = back if before is None else before.add_(back)
            self.unexplained[target.name] = error
        return list(found)

    def state(self) -> dict[str, Tensor]:
        """Weights and moments."""
        return {"aside": torch.stack([self.flat, *self.moments])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for own, known in zip((self.flat, *self.moments), state["aside"], strict=True):
            own.copy_(known)


def targets_of(config: AsideConfig, depth: int, teacher_sizes: Sequence[int], first: int) -> list[Target]:
    """The heads of a family whose shallowest member has `depth` hidden layers; `teacher_sizes` are the sizes of the
    teacher's; the label's columns begin at `first`: the value, then the activations of each pair."""
    found, end = list[Target](), first
    if config.value:
        found.append(Target("value", depth, slice(end, end + 1), config.value))
        end += 1
    for theirs, ours in pairs_of(config, depth, len(teacher_sizes)) if config.hints else ():
        size = teacher_sizes[theirs - 1]
        name = f"hint_{theirs}_{ours}"
        found.append(Target(name, ours, slice(end, end + size), config.hints, config.hint_rounds))
        end += size
    return found


def pairs_of(config: AsideConfig, depth: int, teacher_depth: int) -> list[tuple[int, int]]:
    """(layer of the teacher, of the student), from 1 on: those named, or the middle one of both, as in FitNets."""
    if config.pairs is None:
        return [((teacher_depth + 1) // 2, (depth + 1) // 2)]
    return [(theirs, ours) for theirs, ours in config.pairs]
