"""Figures from episode returns: mean, interval, retention paired by seed, worst decile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from policykd.spine.errors import InputError
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Retention:
    """(student - random) / (teacher - random) with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_interval(returns: Array) -> tuple[float, float]:
    """95 % interval of the mean by Student's t; a single episode has no interval and gives its own value twice."""
    from scipy.special import stdtrit

    n = len(returns)
    centre = float(np.mean(returns))
    if n < 2:
        return centre, centre
    half = float(stdtrit(n - 1, 0.975) * np.std(returns, ddof=1) / np.sqrt(n))
    return centre - half, centre + half


def return_summary(returns: Array) -> dict[str, Any]:
    """{"mean", "std", "ci95"} as in result.json; std is the population's, over episodes."""
    return {"mean": float(np.mean(returns)), "std": float(np.std(returns)), "ci95": list(mean_interval(returns))}


def worst_decile(returns: Array) -> float:
    """Mean of the lowest tenth of the returns (at least one episode): where falls show."""
    return float(np.sort(returns)[: max(len(returns) // 10, 1)].mean())


def refuse_random_teacher(teacher: Array, random: Array) -> None:
    """InputError when the teacher's mean return is not clearly above the random policy's: retention has no meaning.

    Clearly: by more than the 95 % interval of the difference of the means (Welch).
    """
    gap = float(np.mean(teacher) - np.mean(random))
    spread = np.var(teacher, ddof=1) / len(teacher) + np.var(random, ddof=1) / len(random)
    if gap <= 1.96 * float(np.sqrt(spread)):
        raise InputError(
            f"teacher: its return {np.mean(teacher):.4g} is not clearly above random's {np.mean(random):.4g} over "
            f"{len(teacher)} episodes, so retention has no meaning; check the environment, its kwargs and statistics"
            + (
                ", or judge it over more episodes (distill: evaluate.select_episodes, evaluate: --episodes)"
                if gap > 0
                else ""
            )
        )


def retention(teacher: Array, student: Array, random: Array, root_seed: int) -> Retention:
    """Retention with a percentile bootstrap over episodes, paired: episode i has one seed for all three.

    teacher, student, random: returns [E]. 10,000 resamples of the episodes' indices (Efron 1979); a resample whose
    teacher is not above random is counted as the worst, never dropped.
    """
    rng, n = SeedKey(root_seed, "bootstrap").numpy(), len(teacher)
    means = np.empty((3, _RESAMPLES))
    block = max(1, min(_RESAMPLES, 2**20 // n))  # of resamples, so that memory does not grow with the episodes
    for begin in range(0, _RESAMPLES, block):
        index = rng.integers(0, n, (min(block, _RESAMPLES - begin), n))
        for row, returns in enumerate((teacher, student, random)):
            means[row, begin : begin + len(index)] = returns[index].mean(1)
    gap, gain = means[0] - means[2], means[1] - means[2]
    values = np.where(gap > 0, gain / np.where(gap > 0, gap, 1.0), -np.inf)
    value = float((student.mean() - random.mean()) / (teacher.mean() - random.mean()))
    low, high = np.quantile(values, [0.025, 0.975], method="lower")
    if not np.isfinite([low, high]).all():
        raise InputError(
            f"{len(teacher)} episodes are too few to tell the teacher from a random policy; take more (distill: "
            "evaluate.episodes, evaluate: --episodes), or check the teacher"
        )
    return Retention(value, float(low), float(high))
