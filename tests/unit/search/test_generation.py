"""Who goes, who only stops learning, and who drives: never everybody, never the one that will be chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policykd.search.choosing import LADDER
from policykd.search.generation import Plan, _seats, hopeless, nearest, needless
from policykd.students.spec import MemberSpec
from tests.support.standings import session

SPEC = (MemberSpec(1, 2),)


def arrays(*values):
    return [np.array(value, float) for value in values]


def test_the_hopeless_are_out_but_for_the_best_three():
    means, errors = arrays([-0.9, -0.5, -0.95, -0.2, 0.1, -0.11], [0.02] * 6)
    assert hopeless(means, errors).tolist() == [True, True, True, False, False, False]
    assert not hopeless(means, np.full(6, 0.3)).any(), "large errors excuse"


@pytest.mark.parametrize("members", [1, 2, 3, 4, 9])
def test_where_all_are_hopeless_three_are_left(members):
    means = -np.linspace(0.5, 0.9, members)
    out = hopeless(means, np.full(members, 0.01))
    assert (~out).sum() == min(members, 3)
    assert not out[0], "the best"
    assert not needless(means, np.arange(members)).any()


def test_much_larger_than_the_smallest_that_holds_is_not_needed():
    sizes = np.array([9, 12, 20, 40, 100, 500, 2000, 3000])
    means, _ = arrays([-0.5, 0.01, -0.1, 0.02, 0.02, 0.02, 0.02, 0.02], [0] * 8)
    assert needless(means, sizes).tolist() == [False, False, False, False, False, True, True, True]
    means[1] = -0.01  # then 40 is the smallest, and three larger ones stay to fall back on
    assert needless(means, sizes).tolist() == [False] * 7 + [True]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 0.2), st.floats(0.001, 0.3), st.integers(1, 5000)), min_size=1, max_size=20))
def test_somebody_stays_and_it_is_the_smallest_promising_one(rows):
    means, errors = arrays(*zip(*[row[:2] for row in rows], strict=True))
    sizes = np.array([row[2] for row in rows])
    gone = hopeless(means, errors) | needless(means, sizes)
    assert not gone.all()
    promising = np.flatnonzero(means >= 0)
    if len(promising):
        assert not gone[promising[sizes[promising].argmin()]]


def test_those_nearest_to_the_border_drive():
    means, errors = arrays([-0.5, 0.01, 0.4, -0.03], [0.1, 0.1, 0.1, 0.1])
    assert nearest(means, errors, [0, 1, 2, 3]) == [1, 3, 2, 0]
    assert nearest(means, errors, [0, 2]) == [2, 0]


@pytest.mark.parametrize("n_envs", [1, 4, 6, 7, 12])
@pytest.mark.parametrize("members", [1, 3, 8])
def test_drivers_have_evenly_many_environments(tmp_path, n_envs, members):
    found = _seats(members, session(tmp_path, rollout={"n_envs": n_envs}, search={"drivers": 6}))
    assert n_envs % found == 0
    assert 1 <= found <= min(6, members)


@pytest.mark.parametrize("rounds", range(1, 25))
@pytest.mark.parametrize("first", [0, 16])
def test_rungs_lie_inside_a_generation(rounds, first):
    plan = Plan(0, SPEC, first, rounds)
    assert all(first <= index < plan.end - 1 or rounds < 3 for index in plan.rungs)
    assert set(plan.rungs.values()) <= {LADDER[0]}
    assert (len(plan.rungs) == 2) == (rounds >= 4)
