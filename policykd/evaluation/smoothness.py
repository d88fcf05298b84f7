"""How much a policy's actions jump from one step to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.types import Array

if TYPE_CHECKING:
    from gymnasium import Space

_TOGETHER = 64  # steps that are worked out at once


class Changes:
    """`sums` [E]: over the steps of each episode, how far the action is from that of the step before.

    Box: mean over the dimensions of |a_t - a_(t-1)| / range (2 where that is infinite). Choices and bits: the share of
    entries that are others. The first step of an episode has none before it.
    """

    def __init__(self, space: Space[Any], n_episodes: int) -> None:
        from gymnasium import spaces

        self.sums = np.zeros(n_episodes)
        self._width: Array | None = None
        if isinstance(space, spaces.Box):
            width = np.asarray(space.high, np.float64).reshape(-1) - np.asarray(space.low, np.float64).reshape(-1)
            self._width = np.where(np.isfinite(width) & (width > 0), width, 2.0)
        self._last: Array | None = None
        self._actions = list[Array]()
        self._follows, self._episode = list[NDArray[np.bool_]](), list[NDArray[np.int64]]()

    def add(self, actions: Array, follows: NDArray[np.bool_], episode: NDArray[np.int64]) -> None:
        """One step: actions [N, *A], whether each follows another of the same episode [N], and which episode [N]."""
        self._actions.append(actions.copy())
        self._follows.append(follows)
        self._episode.append(episode.copy())
        if len(self._actions) == _TOGETHER:
            self._work_out()

    def total(self) -> Array:
        """`sums` of everything so far."""
        if self._actions:
            self._work_out()
        return self.sums

    def _work_out(self) -> None:
        before = self._actions[0] if self._last is None else self._last
        actions = np.stack([before, *self._actions]).reshape(len(self._actions) + 1, len(before), -1)
        if self._width is None:
            change = (actions[1:] != actions[:-1]).mean(-1)
        else:
            change = (np.abs(np.diff(actions.astype(np.float64), axis=0)) / self._width).mean(-1)
        follows = np.stack(self._follows)
        index, weights = np.stack(self._episode)[follows], change[follows]
        self.sums += np.bincount(index, weights, len(self.sums))
        self._last = self._actions[-1]
        self._actions, self._follows, self._episode = [], [], []


def mean_change(sums: Array, lengths: Array) -> float | None:
    """Per step, over episodes with these sums and lengths [E]; None where no episode has two steps."""
    return share(float(np.sum(sums)), int(np.sum(np.asarray(lengths) - 1)))


def share(total: float, steps: int) -> float | None:
    """The total per step; None of no steps."""
    return total / steps if steps > 0 else None
