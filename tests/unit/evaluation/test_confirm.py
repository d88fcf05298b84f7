"""Confirming: fresh seeds for every attempt, the error split among them, no more episodes than the verdict needs."""

from __future__ import annotations

import numpy as np
import pytest

from policykd.evaluation.confirm import Demand, confirm
from policykd.evaluation.gate import ERROR, Paired, evidence, interval

DEMAND = Demand(keep=0.99, margin=0.02, least=200, most=1000, attempts=3)


class Player:
    """Returns that depend on the seed alone; what was asked for is kept."""

    def __init__(self, true: float, sd: float = 0.02) -> None:
        self.true, self.sd, self.asked = true, sd, []

    def __call__(self, seeds: range) -> Paired:
        self.asked.append(seeds)
        rows = [np.random.default_rng(seed).standard_normal(3) for seed in seeds]
        teacher, random, noise = np.array(rows).T * 0.05 + [[1], [0], [0]]
        return Paired(teacher, teacher - (1 - self.true + self.sd / 0.05 * noise) * (teacher - random), random)


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_all_attempts_together_have_the_error(attempts):
    demand = Demand(0.99, 0.02, 200, 400, attempts)
    assert sum(demand.error(k) for k in range(attempts)) == pytest.approx(ERROR)
    assert all(demand.error(k) > 0 for k in range(attempts))


def test_no_two_attempts_share_a_seed():
    """Undecided ones, which play as much as they may."""
    demand = Demand(0.99, 0.02, 200, 400, 3)
    used = [confirm(Player(0.985, 0.03), 10_000, demand, k).seeds for k in range(3)]
    assert max(map(len, used)) == demand.most
    for i, seeds in enumerate(used):
        assert seeds.start == 10_000 + i * demand.most
        for other in used[:i]:
            assert not set(seeds) & set(other)


def test_seeds_are_played_once_each_and_in_order():
    player = Player(0.98, 0.1)
    found = confirm(player, 500, DEMAND)
    assert [seed for seeds in player.asked for seed in seeds] == list(found.seeds)
    assert len(found.paired) == len(found.seeds)
    whole = Player(0.98, 0.1)(found.seeds)
    np.testing.assert_array_equal(found.paired.student, whole.student)


def test_a_clear_case_takes_the_least():
    found = confirm(Player(1.05), 0, DEMAND)
    assert found.passed
    assert len(found.paired) == DEMAND.least
    assert found.lower >= DEMAND.threshold
    assert found.lower <= found.paired.retention <= found.upper


def test_a_hopeless_one_ends_at_once():
    for true in (0.5, 0.96):
        found = confirm(Player(true), 0, DEMAND)
        assert not found.passed
        assert len(found.paired) == DEMAND.least // 2, "half of them say it"
        assert found.lower < DEMAND.threshold


def test_none_passes_on_fewer_than_least():
    demand = Demand(0.5, 0.02, 200, 1000)  # held by far: 100 episodes would show it
    asked = Player(1.0)
    found = confirm(asked, 0, demand)
    assert found.passed
    assert asked.asked == [range(100), range(100, 200)]


def test_an_undecided_one_takes_more_but_never_more_than_most():
    lengths = [len(confirm(Player(0.98, 0.1), first, DEMAND).paired) for first in range(0, 10_000, 2000)]
    assert any(DEMAND.least < n for n in lengths)
    assert all(DEMAND.least // 2 <= n <= DEMAND.most for n in lengths)
    small = Demand(0.99, 0.02, 3, 7)
    asked = Player(0.98, 0.1)
    found = confirm(asked, 0, small)
    assert 1 <= len(found.paired) <= 7
    assert len(asked.asked[0]) == 1


def test_the_verdict_is_the_evidence_at_the_error_of_the_attempt():
    before = Player(1.0)(range(5000, 5064))
    for number in range(3):
        found = confirm(Player(0.985, 0.06), 0, DEMAND, number, before)
        assert found.error == DEMAND.error(number)
        assert found.passed == evidence(found.paired, DEMAND.threshold, before).holds(found.error)
        assert (found.lower, found.upper) == interval(found.paired, found.error, before)


def test_most_equal_to_least_ends_after_them():
    demand = Demand(0.99, 0.02, 50, 50)
    player = Player(1.0)
    assert not confirm(player, 0, demand).passed, "fifty episodes cannot show it"
    assert player.asked in ([range(25)], [range(25), range(25, 50)])


def constant(loss: float, n: int, gap: float = 1.0) -> Paired:
    """Every student loses this part of the teacher's gain, but for a little noise."""
    noise = 0.02 * np.random.default_rng(5).standard_normal(n)
    teacher = np.full(n, gap)
    return Paired(teacher, teacher * (1 - loss) + noise, np.zeros(n))


def first_half(student: Paired, before: Paired) -> int:
    """Episodes that were played before it was given up: half of the least, or more."""
    played = []

    def play(seeds: range) -> Paired:
        played.append(len(seeds))
        return student.first(len(seeds)) if len(played) == 1 else Player(1.0)(seeds)

    confirm(play, 0, DEMAND, 0, before)
    return sum(played)


def test_half_of_the_least_gives_up_who_lies_below_and_has_nothing_to_show():
    below = constant(0.05, 100)
    assert first_half(below, constant(0.05, 50)) == 100
    assert first_half(below, constant(-0.05, 100)) >= 200, "selection episodes spoke for it"
    assert first_half(constant(0.0, 100), constant(0.2, 300)) >= 200, "it does not lie below"


@pytest.mark.parametrize("least", [10, 200])
def test_an_attempt_whose_first_episodes_show_no_gain_goes_on(least):
    """The teacher's own noise hid what it gains: nothing is known, and the run must not end there."""
    played = []

    def play(seeds: range) -> Paired:
        played.append(seeds)
        gain, own = (-1.0, -2.0) if len(played) == 1 else (3.0, 0.5)
        one = Player(0.5)(seeds)
        span = one.teacher - one.random
        return Paired(one.random + gain * span, one.random + own * span, one.random)

    found = confirm(play, 0, Demand(0.99, 0.02, least, 400, 3))
    assert len(played) > 1 and not found.passed and found.paired.gap > 0
