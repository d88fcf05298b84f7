"""Fails when the plain script and ours do not learn the same thing, when its teacher is another one, when a student is
judged as something else than it is, or when judging runs on the clock or on luck."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from benchmarks.peers import judging
from benchmarks.peers.dagger import _weights
from benchmarks.peers.judging import CONFIRM, SELECT, Judge
from benchmarks.peers.plain import Plain, as_student, kl, label, mlp, sb3_model
from benchmarks.peers.search import descend
from benchmarks.peers.tasks import DAGGER_KNOBS, KEEP, KNOBS, TASKS, Checkpoint, Setting
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.loss.losses import Loss
from policykd.rollout.envs import env_spec
from policykd.spine.config.schema import EnvConfig
from policykd.teachers.load import load_teacher
from tests.support.teachers import SHARED, Spaces, needs_shared

TINY = Setting(n_envs=2, n_steps=30, updates=5, batch=16, learning_rate=1e-2, rounds=2)


@pytest.mark.parametrize("distribution", [Categorical(4), DiagGaussian(3)], ids=repr)
def test_the_plain_script_computes_our_loss(distribution: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(50, distribution.n_params, generator=generator)
    means = torch.randn(50, distribution.n_means, generator=generator)
    log_std = torch.randn(distribution.n_params - distribution.n_means, generator=generator)
    whole = torch.cat([means, log_std.expand(50, -1)], -1)
    expected = Loss()(distribution, labels, whole).mean()
    logged = labels.log_softmax(-1) if isinstance(distribution, Categorical) else labels  # as SB3 gives them
    assert float(kl(means, log_std, logged)) == pytest.approx(float(expected), rel=1e-5)


@needs_shared
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_its_teacher_is_the_same_teacher(task: Any) -> None:
    teacher = load_teacher(SHARED / task.teacher)
    space = teacher.observation_space
    model = sb3_model(teacher, DummyVecEnv([lambda: Spaces(space, teacher.action_space)]))
    raw = 2 * torch.randn(64, *space.shape, generator=torch.Generator().manual_seed(0))
    statistics: Any = teacher.normalizer
    seen = raw if statistics is None else statistics.tensors(torch.device("cpu"))(raw)
    expected = teacher.distribution_params(raw)
    if isinstance(teacher.distribution, Categorical):
        expected = expected.log_softmax(-1)
    torch.testing.assert_close(label(model, seen), expected, rtol=1e-4, atol=1e-5)
    assert len([name for name in _weights(teacher) if name.startswith("weight")]) == 3


@needs_shared
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_judge_sees_the_student_that_was_trained(task: Any) -> None:
    teacher = load_teacher(SHARED / task.teacher)
    size, n = teacher.observation_space.shape[0], teacher.distribution.n_means
    network = mlp(size, task.width, n)
    dense = [layer for layer in network if isinstance(layer, nn.Linear)]
    layers = tuple((layer.weight.detach().T.clone(), layer.bias.detach().clone()) for layer in dense)
    student = as_student(teacher, layers, torch.zeros(teacher.distribution.n_params - n))
    raw = 3 * torch.randn(32, size, generator=torch.Generator().manual_seed(0))
    statistics: Any = teacher.normalizer
    seen = raw if statistics is None else statistics.tensors(torch.device("cpu"))(raw)
    torch.testing.assert_close(student.distribution_params(raw)[:, :n], network(seen), rtol=1e-3, atol=1e-4)


def cartpole() -> tuple[Any, Any]:
    return load_teacher("builtin:cartpole"), env_spec(EnvConfig(id="CartPole-v1"))


def test_the_plain_script_runs_and_the_clock_only_goes_forward() -> None:
    teacher, spec = cartpole()
    found = list(Plain(teacher, spec, 8).race(TINY, 0))
    assert [(one.timesteps, one.updates) for one in found] == [(60, 5), (120, 10)]
    assert 0 < found[0].seconds < found[1].seconds and 0 < found[0].cpu < found[1].cpu


def test_a_lucky_check_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, spec = cartpole()
    judge = Judge(spec, teacher, 4)
    assert judge.retention(teacher, SELECT) == judge.retention(teacher, CONFIRM) == pytest.approx(1.0)
    held = {SELECT: iter([0.5, 0.99, 0.99, 0.99, 0.99]), CONFIRM: iter([KEEP - 0.01, KEEP + 0.01])}
    monkeypatch.setattr(judge, "retention", lambda policy, seeds, first=None: next(held[seeds]))
    asked: list[int] = []

    def race() -> Iterator[Checkpoint]:
        for k in range(9):
            asked.append(k)
            yield Checkpoint(teacher, float(k + 1), 0.0, k, k)  # type: ignore[arg-type]

    finish = judge.finish(race())
    assert finish.reached and finish.checks == 3 and finish.seconds == 3.0
    assert asked == [0, 1, 2]  # nothing is learned behind the last check
    assert judging.HOPELESS < KEEP and not set(SELECT) & set(CONFIRM)


def test_a_race_that_is_lost_is_infinite() -> None:
    teacher, spec = cartpole()
    finish = Judge(spec, teacher, 4).finish(Plain(teacher, spec, 4).race(TINY, 0))
    assert not finish.reached and finish.seconds == float("inf") and finish.checks == 2
    assert np.isnan(finish.confirm) and finish.select < KEEP


def test_both_searches_are_offered_the_same() -> None:
    teacher, spec = cartpole()
    plain = Plain(teacher, spec, 4)
    tries = descend(TINY, [[{"updates": 6}, {"updates": 7}], [{"batch": 8}]], plain.race, Judge(spec, teacher, 4), 1)
    assert len({one.setting for one in tries}) == len(tries) == 4
    assert sum(one.final is not None for one in tries) == 4
    for task in TASKS:
        values = [fields for knob in KNOBS[task.name] for fields in knob]
        assert all(hasattr(task.first, name) for fields in values for name in fields)
        values = [fields for knob in DAGGER_KNOBS[task.name] for fields in knob]
        assert all(hasattr(task.dagger_first, name) for fields in values for name in fields)
