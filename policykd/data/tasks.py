"""The labelled states of several tasks as one data set, with an equal share of every mini-batch for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.loss.heads import shares


class TaskDataset(Dataset):
    """Joins the tasks' own data sets when rows are taken. An input is all tasks' inputs side by side, zero but for its
    own task's, then a one for its task; a label is that of `policykd.loss.heads`."""

    def __init__(self, tasks: Sequence[Dataset], sizes: Sequence[int]) -> None:
        self._ends = [0, *accumulate(sizes)]
        longest = max(task.params.shape[1] for task in tasks)
        super().__init__(self._ends[-1] + len(tasks), 1 + longest, 1, tasks[0].params.device)
        self._tasks = tuple(tasks)

    def __len__(self) -> int:
        return sum(map(len, self._tasks))

    def draw(self, updates: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Indices [updates, batch_size]: of each task's states in its own columns, the first task's first."""
        pairs = zip(self._tasks, shares(batch_size, len(self._tasks)), strict=True)
        return torch.cat([task.draw(updates, share, generator) for task, share in pairs], -1)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [..., B, N] and labels [..., B, 1 + L] of what `draw` gave, index [..., B]."""
        inputs = self._inputs.new_zeros(*index.shape, self._inputs.shape[1])
        labels = self._params.new_zeros(*index.shape, self._params.shape[1])
        begin = 0
        for task, share in enumerate(shares(index.shape[-1], len(self._tasks))):
            rows = slice(begin, begin + share)
            own, params = self._tasks[task].take(index[..., rows])
            inputs[..., rows, self._ends[task] : self._ends[task + 1]] = own
            inputs[..., rows, self._ends[-1] + task] = 1.0
            labels[..., rows, 0] = task
            labels[..., rows, 1 : 1 + params.shape[-1]] = params
            begin += share
        return inputs, labels
