"""The weight of the pull, and the critic's targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policykd.finetuning.critic import discounted, fit_values, regress
from policykd.finetuning.kickstart import weight
from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.load import load_config
from policykd.spine.errors import ConfigError


def retained(student, teacher, random):
    return (student - random) / (teacher - random)


@pytest.mark.parametrize(("teacher", "random"), [(500.0, 20.0), (-150.0, -1200.0), (80.0, -300.0)])
def test_the_pull_of_the_return_schedule_falls_as_the_student_gets_better(teacher, random):
    config = FinetuneConfig(kickstart=2.0)
    returns = np.linspace(random, teacher, 9)
    weights = [weight(config, 0.5, retained(value, teacher, random)) for value in returns]
    np.testing.assert_allclose(weights, 2.0 * np.linspace(1.0, 0.0, 9), atol=1e-12)
    assert weight(config, 0.5, retained(teacher + abs(teacher), teacher, random)) == 0.0  # better than the teacher
    assert weight(config, 0.5, retained(random - abs(random), teacher, random)) == 2.0  # worse than random


def test_constant_and_linear_do_not_ask_for_the_return():
    constant, linear = (FinetuneConfig(kickstart=0.5, schedule=name) for name in ("constant", "linear"))
    assert [weight(constant, p, 3.0) for p in (0.0, 0.5, 1.0)] == [0.5, 0.5, 0.5]
    assert [weight(linear, p, 3.0) for p in (0.0, 0.5, 1.0)] == [0.5, 0.25, 0.0]


def test_discounted_sums_by_hand():
    rewards = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0], [8.0, 1.0]])
    ended = np.array([[False, False], [True, False], [False, False], [False, False]])
    bootstrap = np.array([[9.0, 9.0], [0.0, 9.0], [9.0, 9.0], [100.0, 0.0]])
    found = discounted(rewards, ended, bootstrap, 0.5)
    np.testing.assert_allclose(found[:, 0], [1 + 0.5 * 2, 2, 4 + 0.5 * (8 + 50), 8 + 50])
    np.testing.assert_allclose(found[:, 1], [1.875, 1.75, 1.5, 1.0])


def test_a_cut_episode_is_worth_what_the_bootstrap_says():
    ended = np.array([[True], [False]])
    found = discounted(np.zeros((2, 1)), ended, np.array([[10.0], [20.0]]), 0.9)
    np.testing.assert_allclose(found[:, 0], [9.0, 18.0])


def test_teacher_values_of_scaled_rewards_are_fitted_back():
    rng = np.random.default_rng(0)
    returns = rng.normal(-800, 300, 500)
    fitted = fit_values((returns + 50) / 700 + rng.normal(0, 1e-3, 500), returns)
    assert fitted.useful and fitted.r2 > 0.99
    np.testing.assert_allclose(fitted((np.array([-500.0]) + 50) / 700), -500, rtol=0.01)
    assert not fit_values(rng.normal(size=500), returns).useful  # they say nothing
    assert not fit_values(-returns, returns).useful  # they say the opposite
    assert fit_values(np.ones(5), returns[:5]).r2 == pytest.approx(0.0)


def test_regress_learns_targets_and_tells_how_well():
    torch.manual_seed(0)
    rows = torch.randn(400, 2)
    net = torch.nn.Linear(2, 1)
    known = regress(
        lambda at: [net(rows[at]).flatten()], net.parameters(), rows @ torch.tensor([2.0, -1.0]), 0.05, 20, 64
    )
    assert known > 0.99


def test_a_warm_up_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match="warmup_steps 8192 leave nothing of timesteps 4000"):
        load_config(None, ["finetune.timesteps=4000"])
