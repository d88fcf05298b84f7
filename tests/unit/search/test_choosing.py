"""Which candidate is tried: on how few episodes a clear one is told, in what order, and what follows a failure."""

from __future__ import annotations

import numpy as np
import pytest

from policykd.evaluation.confirm import Attempt, Demand
from policykd.evaluation.gate import Paired
from policykd.search.choosing import LADDER, LEAST, climbed, confirmed, differences, settle, settled, verdict

DEMAND = Demand(keep=0.99, margin=0.02, least=200, most=1000, attempts=3)
GOOD, BORDER, BAD = 1.0, 0.96, 0.5


class Judge:
    """Candidates by their true retention; who was played how often is kept."""

    def __init__(self, **true: float) -> None:
        self.true, self.played = true, dict.fromkeys(true, 0)

    def __call__(self, key: str, n: int) -> Paired:
        self.played[key] = max(self.played[key], n)
        return flawed(self.true[key], self.played[key])


def flawed(true: float, n: int) -> Paired:
    """A student of this retention: a fixed loss, and noise that is the same for all."""
    rng = np.random.default_rng(0)
    teacher, random, noise = 1 + 0.02 * rng.standard_normal(n), 0.02 * rng.standard_normal(n), rng.standard_normal(n)
    return Paired(teacher, teacher - (1 - true + 0.05 * noise) * (teacher - random), random)


def attempts(*passes: bool):
    made = []

    def confirm(key: str, number: int, before: Paired) -> Attempt:
        made.append((key, number, len(before)))
        return Attempt(range(200), before, 0.01, 0.0, 1.0, passes[number])

    return confirm, made


def test_the_difference_is_in_units_of_the_gain():
    rng = np.random.default_rng(1)
    teacher, random = 100 + rng.standard_normal(50), 20 + rng.standard_normal(50)
    paired = Paired(teacher, 0.9 * teacher + 0.1 * random, random)
    mean, error = differences(paired, 0.97)
    assert mean == pytest.approx(-0.07)
    assert 1 / 50 <= error < 1.01 / 50 * 1.1
    scaled = Paired(*(3 * x - 40 for x in (paired.teacher, paired.student, paired.random)))
    assert differences(scaled, 0.97) == pytest.approx((mean, error))


def test_one_episode_is_no_evidence():
    assert differences(flawed(1.0, 1), 0.97)[1] == 1.0
    assert verdict(flawed(0.5, 1), DEMAND) == "open"


@pytest.mark.parametrize("teacher", [0.0, -1.0])
def test_episodes_without_a_gain_of_the_teacher_decide_nothing(teacher):
    """A goal that the teacher reaches once in ten times is not seen in some eights."""
    paired = Paired(np.full(8, teacher), np.zeros(8), np.zeros(8))
    mean, error = differences(paired, 0.97)
    assert np.isfinite([mean, error]).all()
    assert mean < 0, "it is not promising"
    assert verdict(paired, DEMAND) == "open"


def test_verdicts():
    assert verdict(flawed(BAD, LADDER[0]), DEMAND) == "failing"
    assert verdict(flawed(GOOD, LADDER[0]), DEMAND) == "open", "eight good episodes pass nobody"
    assert verdict(flawed(GOOD, LEAST), DEMAND) == "passing"
    assert verdict(flawed(BORDER, LEAST), DEMAND) != "passing"
    assert settled(flawed(0.968, LADDER[-1]), DEMAND) == "failing"
    assert settled(flawed(0.968, LADDER[0]), DEMAND) == "open"


def test_a_demand_that_cannot_be_shown_in_its_episodes_passes_nobody():
    assert verdict(flawed(GOOD, LEAST), Demand(0.99, 0.02, 20, 30)) == "open"


def test_who_is_clear_gets_few_episodes():
    judge = Judge(bad=BAD, border=0.968, good=GOOD)
    assert [climbed(key, judge, DEMAND) for key in judge.true] == ["failing", "failing", "passing"]
    assert judge.played == {"bad": LADDER[0], "border": LADDER[-1], "good": LEAST}


def test_the_first_that_passes_ends_it():
    judge = Judge(bad=BAD, good=GOOD, larger=GOOD)
    found = settle(judge.true, judge, DEMAND)
    assert found.passing == "good"
    assert found.verdicts == {"bad": "failing", "good": "passing"}
    assert judge.played["larger"] == 0
    assert settle(["bad"], judge, DEMAND).passing is None
    assert settle([], judge, DEMAND).verdicts == {}


def test_after_a_failed_attempt_comes_the_next_larger_one():
    judge = Judge(bad=BAD, a=GOOD, b=GOOD, c=GOOD, d=GOOD)
    confirm, made = attempts(False, True)
    found = confirmed(judge.true, judge, confirm, DEMAND)
    assert found.chosen == "b"
    assert made == [("a", 0, LEAST), ("b", 1, LEAST)], "each with all its selection episodes"
    assert judge.played["c"] == 0


def test_no_more_attempts_than_the_error_was_split_among():
    judge = Judge(a=GOOD, b=GOOD, c=GOOD, d=GOOD)
    confirm, made = attempts(False, False, False)
    found = confirmed(judge.true, judge, confirm, DEMAND)
    assert found.chosen is None
    assert [key for key, _, _ in made] == ["a", "b", "c"]
    assert [number for _, number, _ in made] == [0, 1, 2]
    confirm, made = attempts(False)
    assert confirmed(["a", "bad"], Judge(a=GOOD, bad=BAD), confirm, DEMAND).chosen is None
    assert len(made) == 1
    confirm, made = attempts()
    assert confirmed([], judge, confirm, DEMAND).attempts == []


def test_what_is_as_large_as_a_failure_comes_last():
    judge, sizes = Judge(a=GOOD, b=GOOD, c=GOOD, d=GOOD), {"a": 5, "b": 5, "c": 9, "d": 9}
    confirm, made = attempts(False, False, True)
    found = confirmed(judge.true, judge, confirm, DEMAND, sizes.__getitem__)
    assert [key for key, *_ in made] == ["a", "c", "d"] and found.chosen == "d"
    confirm, made = attempts(False, True)
    confirmed({"a": GOOD, "b": GOOD, "bad": BAD}, Judge(a=GOOD, b=GOOD, bad=BAD), confirm, DEMAND, len)
    assert [key for key, *_ in made] == ["a", "b"], "where nothing larger passes, one of the same size is tried"
