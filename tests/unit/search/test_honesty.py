"""How often the search claims what is not true, with the code that shrinks (benchmarks/honesty.py).

The bound of the issue is 5 % for each kind of loss. With 60 simulated searches whose rate is 5 %, more than 8 claims
come with a chance of 0.3 % (binomial), so more than 8 are a fault; that of the control is near 1, and 4 or fewer of 20
would have a chance below 1 % even at a rate of 0.45. Seeds are fixed. 300 searches of each kind are in
docs/benchmarks/honesty.md.
"""

from __future__ import annotations

import pytest

from benchmarks.honesty import (
    BELOW,
    DEMAND,
    FALSE_AT_MOST,
    LOSSES,
    World,
    claims,
    claims_naively,
    failures,
    one_member,
    rate,
)
from policykd.spine.seeding import SeedKey

FALSE = DEMAND.threshold - BELOW


@pytest.mark.parametrize("name", ["Gaussian, sd 0.1", "rare total failures"])
def test_false_claims_are_rare(name):
    assert round(60 * rate(claims, LOSSES[name], FALSE, 60)) <= 8


def test_a_bootstrap_with_peeking_would_not_do():
    assert rate(claims_naively, failures, FALSE, 20) > 4 / 20 > FALSE_AT_MOST


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_as_good_as_its_teacher_passes(name):
    """The gate is of use: nine in ten with a small noise, some with a large one."""
    least = 0.3 if "0.2" in name else 0.9
    assert rate(one_member, LOSSES[name], 1.0, 15) >= least


def test_the_simulated_returns_have_the_retention_that_they_should():
    for loss in LOSSES.values():
        paired = World(loss, FALSE, SeedKey(0, "random").numpy()).play(range(100_000))
        assert paired.retention == pytest.approx(FALSE, abs=0.002)
