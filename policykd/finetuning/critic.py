"""The critic learns before the actor moves: the known failure of fine-tuning is an actor that follows a random one.

Targets are the student's own discounted returns. Where the teacher holds a critic, its values are fitted to them first
(value = scale x V_teacher + offset, by least squares: its rewards may have been scaled, and it acts otherwise), and
where they explain the returns they are what the critic learns: they say the same with less noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from policykd.teachers.base import Teacher

F64 = NDArray[np.float64]
_LEAST_R2 = 0.5  # of the teacher's values over the returns, for the critic to learn from them
_CHUNK = 4096


@dataclass(frozen=True)
class Fitted:
    """The teacher's values as an estimate of the student's returns: scale x V + offset, which explain `r2` of them."""

    scale: float
    offset: float
    r2: float

    @property
    def useful(self) -> bool:
        """Whether they say more than the mean does."""
        return self.scale > 0 and self.r2 >= _LEAST_R2

    def __call__(self, values: F64) -> F64:
        """Estimates [B] for the teacher's values [B]."""
        return self.scale * values + self.offset


def fit_values(values: F64, returns: F64) -> Fitted:
    """Least squares of the returns [B] over the teacher's values [B]."""
    centred, spread = values - values.mean(), returns - returns.mean()
    variance = float(centred @ centred)
    scale = float(centred @ spread) / variance if variance > 0 else 0.0
    left = spread - scale * centred
    total = float(spread @ spread)
    r2 = 1.0 - float(left @ left) / total if total > 0 else 0.0
    return Fitted(scale, float(returns.mean() - scale * values.mean()), r2)


def values_of(teacher: Teacher, observation: NDArray[np.generic]) -> F64:
    """What the teacher expects of raw observations [B, *O], [B]."""
    parts = [
        teacher.value(torch.from_numpy(observation[begin : begin + _CHUNK]).to(teacher.device)).cpu().numpy()
        for begin in range(0, len(observation), _CHUNK)
    ]
    return np.concatenate(parts).astype(np.float64)


def discounted(rewards: F64, ended: NDArray[np.bool_], bootstrap: F64, gamma: float) -> F64:
    """Returns [T, N] of rewards [T, N]. Where an episode ended or was cut, `bootstrap` [T, N] is the value of what came
    next (0 behind a terminal state); the last row counts as cut."""
    result = np.zeros_like(rewards)
    following = bootstrap[-1]
    for step in reversed(range(len(rewards))):
        following = np.where(ended[step], bootstrap[step], following)
        following = rewards[step] + gamma * following
        result[step] = following
    return result


def regress(
    predict: Callable[[Tensor], Iterable[Tensor]],
    parameters: Iterable[Tensor],
    targets: Tensor,
    rate: float,
    epochs: int,
    batch_size: int,
) -> float:
    """Fits every output [B] of `predict(rows)` to `targets` [M] at these rows; the part of the variance explained."""
    known = list(parameters)
    optimizer = torch.optim.Adam(known, rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(targets)).split(batch_size):
            loss = torch.stack([F.mse_loss(output, targets[rows]) for output in predict(rows)]).sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(known, 10.0)
            optimizer.step()
    with torch.no_grad():
        every = torch.arange(len(targets)).split(_CHUNK)
        found = torch.cat([next(iter(predict(rows))) for rows in every])
        total = float((targets - targets.mean()).square().mean())
        return 1.0 - float((targets - found).square().mean()) / total if total > 0 else 0.0
