"""Fails when retention is not (student - random) / (teacher - random), when its interval covers too rarely, or when a
teacher that is no better than random is not refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from policykd.evaluation.stats import (
    mean_interval,
    refuse_random_teacher,
    retention,
    return_summary,
    worst_decile,
)
from policykd.spine.errors import InputError


def test_known_values() -> None:
    n = 50
    held = retention(np.full(n, 200.0), np.full(n, 155.0), np.full(n, 20.0), 0)
    assert (held.value, held.low, held.high) == (0.75, 0.75, 0.75)
    same = np.random.default_rng(0).normal(100, 20, n)
    held = retention(same, same, np.zeros(n), 0)
    assert (held.value, held.low, held.high) == (1.0, 1.0, 1.0), "paired: equal episodes leave no doubt"


def test_negative_returns() -> None:
    n = 30
    assert retention(np.full(n, -100.0), np.full(n, -190.0), np.full(n, -1000.0), 0).value == pytest.approx(0.9)
    better = retention(np.full(n, -100.0), np.full(n, -55.0), np.full(n, -1000.0), 0)
    worse = retention(np.full(n, -100.0), np.full(n, -1450.0), np.full(n, -1000.0), 0)
    assert better.value == pytest.approx(1.05) and worse.value == pytest.approx(-0.5)


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(1)
    easy = rng.normal(0, 30, 100)  # how easy a seed is, the same for all
    teacher, student, chance = (level + easy + rng.normal(0, 2, 100) for level in (200.0, 190.0, 0.0))
    paired = retention(teacher, student, chance, 0)
    mixed = retention(teacher, rng.permutation(student), rng.permutation(chance), 0)
    assert paired.high - paired.low < 0.3 * (mixed.high - mixed.low)
    assert paired.value == pytest.approx(mixed.value)


def test_all_three_are_resampled_together() -> None:
    rng = np.random.default_rng(4)
    teacher, chance = rng.normal(200, 30, 40), rng.normal(0, 60, 40)
    held = retention(teacher, 0.9 * teacher + 0.1 * chance, chance, 0)
    assert (held.low, held.high) == (pytest.approx(0.9), pytest.approx(0.9)), "in every resample it is 0.9"


def test_the_interval_is_a_function_of_returns_and_seed() -> None:
    rng = np.random.default_rng(2)
    data = [rng.normal(level, 10, 40) for level in (100, 95, 0)]
    assert retention(*data, 5) == retention(*data, 5)
    assert retention(*data, 5) != retention(*data, 6)
    assert retention(*data, 5).value == retention(*data, 6).value


@pytest.mark.parametrize("spread", ["normal", "falls"])
def test_the_interval_covers(spread: str) -> None:
    rng, n, inside, truth = np.random.default_rng(0), 60, 0, 0.9
    repetitions = 200
    for repetition in range(repetitions):
        easy = rng.normal(0, 20, n)
        teacher, chance = 300 + easy + rng.normal(0, 5, n), 50 + easy + rng.normal(0, 20, n)
        if spread == "normal":
            student = 275 + easy + rng.normal(0, 15, n)
        else:  # one episode in eight ends early, as HalfCheetah's do
            student = 300 + easy - np.where(rng.random(n) < 0.125, 200.0, 0.0) + rng.normal(0, 5, n)
        held = retention(teacher, student, chance, repetition)
        inside += held.low <= truth <= held.high
    assert 0.90 <= inside / repetitions <= 0.99


def test_too_few_episodes_are_refused() -> None:
    teacher, chance = np.array([100.0, -300.0, 50.0]), np.array([0.0, 0.0, 0.0])
    with pytest.raises(InputError, match=r"^3 episodes are too few.*--episodes") as caught:
        retention(teacher, teacher, chance, 0)
    assert "\n" not in str(caught.value)


def test_a_teacher_like_random_is_refused() -> None:
    rng = np.random.default_rng(3)
    chance = rng.normal(-1200, 200, 20)
    for teacher in (rng.normal(-1210, 200, 20), rng.normal(-1180, 200, 20), chance, np.full(20, -2000.0)):
        with pytest.raises(InputError, match="not clearly above") as caught:
            refuse_random_teacher(teacher, chance)
        more = "distill: evaluate.select_episodes, evaluate: --episodes" in str(caught.value)
        assert more == (teacher.mean() > chance.mean()), "more episodes may help, whoever asked"
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        refuse_random_teacher(np.full(20, 9.0), np.full(20, 9.0))
    refuse_random_teacher(rng.normal(-200, 100, 20), chance)
    refuse_random_teacher(np.full(20, 10.0), np.full(20, 9.0))


def test_worst_decile() -> None:
    returns = np.random.default_rng(0).permutation(np.arange(50.0))
    assert worst_decile(returns) == 2.0  # of 0, 1, 2, 3, 4
    assert worst_decile(np.array([3.0, 1.0, 2.0])) == 1.0
    assert worst_decile(np.arange(19.0)) == 0.0


def test_mean_interval_is_students() -> None:
    returns = np.random.default_rng(0).normal(5, 2, 12)
    expected = ttest_1samp(returns, 0).confidence_interval(0.95)
    assert mean_interval(returns) == pytest.approx((expected.low, expected.high))
    assert mean_interval(np.array([3.0])) == (3.0, 3.0)
    summary = return_summary(returns)
    assert summary["mean"] == returns.mean() and summary["std"] == returns.std()
    assert summary["ci95"] == list(mean_interval(returns))
