"""Fails when a number that moves nothing is called important, or a share of variance is not the known one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.evaluation.analysis import analysis
from policykd.evaluation.sensitivity import sensitivity
from tests.support.core import StubTeacher

SEEN = np.random.default_rng(0).normal(size=(4000, 3)).astype("f4")


def test_choices_that_follow_one_number_move_with_it_alone() -> None:
    def by_second(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 1], -x[:, 1], torch.full((len(x),), -9.0)], -1)

    def constant(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 1] * 0, x[:, 1] * 0 + 1, x[:, 1] * 0], -1)

    box = spaces.Box(-9, 9, (3,), np.float32)
    teacher, student = StubTeacher(constant, observation_space=box), StubTeacher(by_second, observation_space=box)
    found = sensitivity(teacher, student, SEEN)
    assert found is not None
    assert [entry["name"] for entry in found] == ["obs[1]", "obs[0]", "obs[2]"]
    assert found[0]["student"] == pytest.approx(0.5, abs=0.06) and found[1]["student"] == 0
    assert all(entry["teacher"] == 0 for entry in found)
    assert analysis(teacher, student, SEEN)["sensitivity"] == found


def test_shares_of_variance_are_sobols() -> None:
    """Of 2 x0 + x1 with independent inputs: 0.8, 0.2 and nothing."""
    from tests.support.core import student

    like = student("gaussian", hidden=())
    n = like.distribution.n_means
    weight = torch.zeros(3, n)
    weight[0], weight[1] = 0.2, 0.1
    from dataclasses import replace

    from policykd.students.normaliser import Normaliser

    plain = Normaliser(np.zeros(3, "f4"), np.ones(3, "f4"))
    policy = replace(like, layers=((weight, torch.zeros(n)),), normaliser=plain)
    wide = replace(policy.action_map, kind="clip", low=(-99.0,) * n, high=(99.0,) * n)
    found = sensitivity(replace(policy, action_map=wide), replace(policy, action_map=wide), SEEN)
    assert found is not None
    values = {entry["name"]: entry["student"] for entry in found}
    assert values["obs[0]"] == pytest.approx(0.8, abs=0.08) and values["obs[1]"] == pytest.approx(0.2, abs=0.04)
    assert values["obs[2]"] == 0


def test_where_the_teacher_is_unsure_is_where_a_student_may_differ() -> None:
    def sure_far_out(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([4 * x[:, 0].abs(), x[:, 0] * 0, x[:, 0] * 0 - 9], -1)

    def differs_near_zero(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0].abs() - 0.2, x[:, 0] * 0, x[:, 0] * 0 - 9], -1)

    box = spaces.Box(-9, 9, (3,), np.float32)
    document = analysis(
        StubTeacher(sure_far_out, observation_space=box), StubTeacher(differs_near_zero, observation_space=box), SEEN
    )
    shares = document["by_entropy"]["share"]
    assert shares[-1] == 1 and shares[0] == 0
    first = document["disagreement"][0]
    assert first["name"] == "obs[0]" and np.argmax(first["entropy"]) in (4, 5)
