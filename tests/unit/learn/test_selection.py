"""Fails when the choice among members is not: highest return, then fewest parameters, then the latest round."""

from __future__ import annotations

import pytest

from policykd.learn.rounds.selection import Choice, Selection, judged
from policykd.loss.distributions import Categorical
from policykd.students.family import Family
from policykd.students.spec import MemberSpec

# in the family's order: 1x16 has 98 parameters on 3 inputs, 2x4 has 46, 2x8 has 122
FAMILY = Family([MemberSpec(2, 8), MemberSpec(2, 4), MemberSpec(1, 16)], 3, Categorical(2))


def test_the_order_of_sizes_is_as_said() -> None:
    assert [s.footprint(3, 2).params for s in FAMILY.specs] == [98, 46, 122]


@pytest.mark.parametrize(
    ("returns", "choice"),
    [
        ({3: [1.0, 2.0, 3.0]}, Choice(3, 2)),  # the highest, however large
        ({3: [3.0, 3.0, 3.0]}, Choice(3, 1)),  # among equals the smallest
        ({3: [3.0, 2.9, 3.0]}, Choice(3, 0)),
        ({3: [3.0, 3.0, 3.0], 4: [3.0, 3.0, 3.0]}, Choice(4, 1)),  # then the later round
        ({4: [3.0, 3.0, 3.0], 3: [3.0, 3.0, 3.0]}, Choice(4, 1)),
        ({3: [3.0, 3.0, 9.0], 4: [3.0, 3.0, 3.0]}, Choice(3, 2)),
        ({3: [0.0, 5.0, 0.0], 4: [5.0, 4.0, 5.0]}, Choice(3, 1)),  # the size goes before the round
        ({3: [-200.0, -300.0, -100.0]}, Choice(3, 2)),
    ],
)
def test_best(returns: dict[int, list[float]], choice: Choice) -> None:
    assert Selection(returns).best(FAMILY) == choice


def test_best_round_of_a_member() -> None:
    selection = Selection({2: [1.0, 5.0], 3: [4.0, 5.0], 4: [3.0, 1.0]})
    assert selection.best_of(0) == Choice(3, 0) and selection.best_of(1) == Choice(3, 1)


@pytest.mark.parametrize(("rounds", "expected"), [(1, [0]), (3, [2]), (4, [3]), (8, [6, 7]), (16, [12, 13, 14, 15])])
def test_the_last_quarter_is_judged(rounds: int, expected: list[int]) -> None:
    assert [r for r in range(rounds) if judged(r, rounds)] == expected
