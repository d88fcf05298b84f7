"""Several tasks' distributions side by side in one output, and a loss that looks at each row's own task alone.

Outputs [S, B, P]: the means (or logits) of all tasks one after the other, then all their log_std. Labels [B, 1 + L]:
the task's number, then its own label, and zeros where another task's is longer (Rusu et al. 2015, arXiv:1511.06295,
section 3.3: one output layer for each task).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.loss.losses import Loss


@dataclass(frozen=True)
class Heads:
    """The distributions of the tasks, in order."""

    parts: tuple[Distribution, ...]

    @property
    def n_means(self) -> int:
        """Of all tasks."""
        return sum(part.n_means for part in self.parts)

    @property
    def n_params(self) -> int:
        """Of all tasks."""
        return sum(part.n_params for part in self.parts)

    @cached_property
    def means(self) -> tuple[slice, ...]:
        """Where each task's means stand."""
        return _slices(part.n_means for part in self.parts)

    @cached_property
    def spreads(self) -> tuple[slice, ...]:
        """Where each task's log_std stands, among those of all; an empty slice where it has none."""
        return _slices(part.n_params - part.n_means for part in self.parts)

    def columns(self, task: int, device: torch.device | str = "cpu") -> Tensor:
        """Where the parameters of a task stand in an output [P]."""
        places, spread = torch.arange(self.n_params, device=device), self.spreads[task]
        behind = slice(self.n_means + spread.start, self.n_means + spread.stop)
        return torch.cat([places[self.means[task]], places[behind]])


@dataclass(frozen=True)
class HeadLoss(Loss):
    """The loss `own` of each row by its own head. The gradient by all other heads is zero.

    `dealt`: rows lie in the order and the `shares` in which `policykd.data.tasks` deals them; where a task's rows are
    need not be asked of the device then.
    """

    heads: Heads = Heads(())
    own: Loss = field(default_factory=Loss)
    dealt: bool = False

    def __call__(self, distribution: Distribution, labels: Tensor, student: Tensor) -> Tensor:
        loss = student.new_zeros(student.shape[:-1])
        for part, rows, columns in self._tasks(labels):
            loss[..., rows] = self.own(part, labels[rows, 1:], student[..., rows, :][..., columns])
        return loss

    def with_gradient(self, distribution: Distribution, labels: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = student.new_zeros(student.shape[:-1]), torch.zeros_like(student)
        for part, rows, columns in self._tasks(labels):
            some, slope = self.own.with_gradient(part, labels[rows, 1:], student[..., rows, :][..., columns])
            loss[..., rows] = some
            gradient[..., rows if self.dealt else rows.unsqueeze(-1), columns] = slope
        return loss, gradient

    def _tasks(self, labels: Tensor) -> Iterator[tuple[Distribution, Any, Tensor]]:
        """The rows of each task, and the columns of its head."""
        dealt = _slices(iter(shares(len(labels), len(self.heads.parts))))
        for task, part in enumerate(self.heads.parts):
            columns = self.heads.columns(task, labels.device)
            if self.dealt:
                yield part, dealt[task], columns
            elif len(rows := (labels[:, 0] == task).nonzero().squeeze(-1)):
                yield part, rows, columns


def shares(rows: int, tasks: int) -> list[int]:
    """How many of a mini-batch each task has, one after the other; the first ones take what does not divide."""
    each, rest = divmod(rows, tasks)
    return [each + (task < rest) for task in range(tasks)]


def _slices(sizes: Iterator[int]) -> tuple[slice, ...]:
    found, end = [], 0
    for size in sizes:
        found.append(slice(end, end + size))
        end += size
    return tuple(found)
