"""How members stand: what was played is played once, and a lucky few episodes do not decide."""

from __future__ import annotations

import numpy as np
import pytest

from policykd.search.choosing import LADDER
from policykd.search.standing import Standing, key_of
from policykd.students.spec import MemberSpec
from tests.support.standings import DEMAND, cartpole, put, session, standing

A, B, C = MemberSpec(1, 2), MemberSpec(1, 4), MemberSpec(1, 4, 1)


def test_members_are_those_that_were_judged_smallest_first(tmp_path):
    found = standing(tmp_path)
    for spec in (C, B, A):
        put(found, spec, 0.9, 8)
    put(found, MemberSpec(2, 2), 0.9, 0)
    assert found.members == [A, B, C]
    assert found.of(MemberSpec(2, 2)) == []
    assert found.best_of(MemberSpec(2, 2)) is None


def test_the_best_round_counts_less_where_few_episodes_tell_of_it(tmp_path):
    found = standing(tmp_path)
    put(found, A, 0.98, 96, index=3)
    lucky = put(found, A, 1.0, 2, index=4)
    assert found.best_of(A).round == 3
    assert found.worth(lucky) < found.worth(found.candidates[key_of(A, 3)])
    put(found, A, 0.999, 96, index=5)
    assert found.best_of(A).round == 5
    put(found, A, 0.999, 96, index=6)
    assert found.best_of(A).round == 6, "the later of equals"


def test_what_nobody_judged_is_forgotten(tmp_path):
    found = standing(tmp_path)
    put(found, A, 0.9, 8, index=3)
    put(found, A, 0.9, 0, index=4)
    put(found, B, 0.9, 0, index=4)
    found.keep_only([key_of(B, 4)])
    assert set(found.candidates) == {key_of(A, 3), key_of(B, 4)}


def test_episodes_are_played_once_in_the_order_of_seeds_and_kept(tmp_path):
    """Real ones, by the teacher's own weights as a candidate: its returns are the teacher's."""
    one = session(tmp_path, teacher=cartpole(), evaluate={"select_episodes": 4})
    one.baseline.update(teacher_returns=[500.0] * 4, random_returns=[20.0] * 4)
    found = Standing(one, DEMAND)
    put(found, A, 0.5, 0)
    key = key_of(A, 3)
    few = found.judge(key, 3)
    assert len(few) == 3
    more = found.judge(key, LADDER[0])
    assert len(more) == LADDER[0]
    np.testing.assert_array_equal(more.student[:3], few.student)
    np.testing.assert_array_equal(more.teacher[:4], [500.0] * 4)
    assert (more.teacher[4:] > 100).all()
    assert (more.random < 100).all()
    assert len(found.judge(key, 1)) == LADDER[0], "all that were played"
    again = Standing(one, DEMAND)
    again.add(found.candidates[key])
    np.testing.assert_array_equal(again.judge(key, 1).student, more.student)
    np.testing.assert_array_equal(again.judge(key, 1).random, more.random)


def test_the_document_names_everybody(tmp_path):
    found = standing(tmp_path)
    put(found, B, 0.9, 8, agreement=0.9, train_kl=0.1, other=3.0)
    found.dropped, found.stopped = {B, A}, {C}
    assert found.to_json() == {
        "dropped": [[1, 2, 0], [1, 4, 0]],
        "stopped": [[1, 4, 1]],
        "walked": [],
        "candidates": [
            {"spec": [1, 4, 0], "round": 3, "timesteps": 300, "measured": {"agreement": 0.9, "train_kl": 0.1}}
        ],
    }


def test_weights_have_names_of_their_own(tmp_path):
    found = standing(tmp_path)
    put(found, MemberSpec(2, 3), 0.9)
    (candidate,) = found.candidates.values()
    names = candidate.tensors()
    assert set(names) == {
        f"candidate.d2-w3-s0-r3.{name}"
        for name in ("log_std", *(f"{k}.{w}" for k in range(3) for w in ("weight", "bias")))
    }
    assert candidate.params == sum(v.size for v in names.values())
    assert candidate.params == pytest.approx(15 + 12 + 8)


def test_who_was_settled_stands_for_its_member_though_another_looks_lucky(tmp_path):
    """A ticket with a few lucky episodes must not undo what many episodes showed."""
    found, spec = standing(tmp_path), MemberSpec(1, 2)
    settled, lucky = put(found, spec, 0.985, 64, index=1), put(found, spec, 1.5, 8, index=2)
    assert found.best_of(spec) is lucky
    found.settle([settled.key])
    assert found.best_of(spec) is settled
    assert found.to_json()["walked"] == [settled.key]
