"""States that nobody learns from: whole environments of each round are held out, and tell over-fitting from learning.

Each round other environments are held out, since states of one episode resemble each other: a random part of all states
would be known from its neighbours. With `update.patience` the run ends when the members' mean loss there has not fallen
for so many rounds, and goes back to the weights of its best round (early stopping, Prechelt 1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.loss.losses import Loss

Params = Callable[[Tensor], Tensor]
"""A member as it is: inputs [M, O] to parameters [M, P]."""


@dataclass
class HeldOut:
    """Inputs [M, O] and labels [M, L] that are held out; of each round the mean loss there, and the best weights."""

    inputs: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: Tensor | None = None

    def taken(self, inputs: Tensor, labels: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps the rows `out` [M] of a round's states; the others are given back, to be learned from."""
        self.inputs.append(inputs[out])
        self.labels.append(labels[out])
        return inputs[~out], labels[~out]

    def judge(self, loss: Loss, distribution: Distribution, members: Sequence[Params], weights: Tensor) -> None:
        """The mean loss of all members after a round, and the weights that gave it."""
        total, count = 0.0, 0
        for inputs, labels in zip(self.inputs, self.labels, strict=True):
            count += len(inputs)
            for member, params in enumerate(members):
                total += float(loss.among([member])(distribution, labels, params(inputs)).sum())
        mean = total / max(count * len(members), 1)
        if mean < min(self.losses, default=math.inf):
            self.best = weights.clone()
        self.losses.append(mean)

    @property
    def best_round(self) -> int:
        """The round after which the loss was lowest."""
        return min(range(len(self.losses)), key=self.losses.__getitem__)

    def over(self, patience: int | None) -> bool:
        """Whether the loss has not fallen for `patience` rounds."""
        return patience is not None and bool(self.losses) and len(self.losses) - 1 - self.best_round >= patience


def held_rows(env: Tensor, share: float, n_envs: int, round_index: int) -> Tensor:
    """[M] which rows of a round are held out, by the environment [M] of each: at least one of `n_envs`, others in each
    round."""
    count = max(1, round(share * n_envs))
    return (env.long() - count * round_index) % n_envs < count
