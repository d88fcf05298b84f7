"""Modes, samples and noise of actions in NumPy, for batches so small that torch's calls would cost more."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from policykd.loss.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    SquashedDiagGaussian,
)
from policykd.spine.types import Array, TeacherPolicy

_NOISE_ROWS = 64  # steps whose random numbers are drawn at once


def mode(distribution: Distribution, params: Array) -> Array:
    """The deterministic action for parameters [B, P], or for means [B, M] alone, as the distribution's own `mode`."""
    match distribution:
        case Categorical():
            return np.asarray(params.argmax(-1))
        case MultiCategorical():
            parts = np.split(params, np.cumsum(distribution.nvec)[:-1], -1)
            return np.stack([part.argmax(-1) for part in parts], -1)
        case Bernoulli():
            return (params > 0).astype(np.int64)
        case SquashedDiagGaussian():
            return np.tanh(params[:, : distribution.dim])
        case _:
            return params[:, : distribution.n_means]


class Sampler:
    """Draws one action for each of N slots at every call, from a generator of its own.

    `log_std`, [A] or [N, A], is that of a Gaussian, and empty for other distributions. `noise()` is the next draw alone
    [N, M], in an array that is the caller's; of a Gaussian (`gaussian`) an action is the mean and this.
    """

    def __init__(self, distribution: Distribution, n: int, rng: np.random.Generator, log_std: Array) -> None:
        self._distribution, self._rng = distribution, rng
        self._std = np.exp(log_std)
        self.noise = chain.from_iterable(self._drawn((_NOISE_ROWS, n, distribution.n_means))).__next__
        self.gaussian = isinstance(distribution, DiagGaussian)

    def __call__(self, means: Array) -> Array:
        """Actions for logits or means [N, M], in the shape of `mode`."""
        noise = self.noise()
        np.add(noise, means, noise)
        return noise if self.gaussian else mode(self._distribution, noise)

    def _drawn(self, shape: tuple[int, ...]) -> Iterator[list[NDArray[np.float32]]]:
        while True:
            if self._std.size:
                drawn = self._rng.standard_normal(shape, np.float32) * self._std
            elif isinstance(self._distribution, Bernoulli):
                drawn = self._rng.logistic(size=shape).astype(np.float32)
            else:  # Gumbel
                exponential = self._rng.standard_exponential(shape, np.float32)
                drawn = -np.log(np.maximum(exponential, np.float32(1e-20)))
            yield list(drawn)


def perturbed(actions: Array, policy: TeacherPolicy, noise: float, rng: np.random.Generator) -> Array:
    """Exploration of a teacher without a distribution of its own: normal in the box, else uniform now and then.

    actions [N, ...] of the environment; `noise` is the standard deviation as a part of the range, or the probability.
    """
    space = policy.action_space
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if low is not None and high is not None:
        width = np.where(np.isfinite(high - low), high - low, 1.0)
        noisy = actions + noise * width * rng.standard_normal(actions.shape)
        return np.clip(noisy, low, high).astype(actions.dtype)
    bits = policy.action_map.kind == "multi_binary"  # whose `n` is how many there are
    sizes = 2 if bits else getattr(space, "nvec", getattr(space, "n", 2))
    start = getattr(space, "start", 0)
    swap = rng.random(actions.shape) < noise
    return np.where(swap, rng.integers(0, sizes, actions.shape) + start, actions).astype(actions.dtype)
