"""Fails when what `auto` becomes does not follow from spaces, teacher and measured episodes as documented."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from policykd.learn.rounds.states import members_of
from policykd.learn.setup.defaults import Measured, default_width, resolve, resolve_device
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.types import Footprint, TeacherInfo
from tests.support.core import Counting, StubTeacher

CARTPOLE = EnvSpec("CartPole-v1", backend="native")


def info(*layers: tuple[int, int]) -> TeacherInfo:
    return TeacherInfo("t", "0", "ppo", None, None, layers, "tanh", False, False, Footprint(1, 0, 1))


@pytest.mark.parametrize(
    ("n_inputs", "n_outputs", "hidden", "width"),
    [
        (4, 2, 64, 12),  # 2 * 6
        (8, 4, 64, 24),
        (17, 6, 64, 32),  # half of the teacher's widest
        (17, 6, 400, 48),  # 46, rounded up
        (1, 1, 64, 8),  # at least 8
        (2, 1, 8, 8),
        (376, 17, 256, 128),
    ],
)
def test_width(n_inputs: int, n_outputs: int, hidden: int, width: int) -> None:
    assert default_width(n_inputs, n_outputs, info((n_inputs, hidden), (hidden, 3), (3, n_outputs))) == width


def test_width_beside_a_linear_teacher() -> None:
    assert default_width(4, 2, info((4, 2))) == 12


def settle(config: Config, spec: EnvSpec = CARTPOLE, length: float = 200.0, teacher: Any = None) -> Config:
    teacher = teacher or StubTeacher(lambda x: x[:, :2], Categorical(2), spaces.Discrete(2))
    measured = Measured(length, np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32))
    return resolve(config, info((2, 64), (64, 2)), teacher, spec, measured)


def test_nothing_is_left_auto() -> None:
    settled = settle(Config())
    assert "auto" not in str(settled.model_dump())
    assert settled.env.id == "CartPole-v1" and settled.env.backend == "native"
    assert settle(settled) == settled, "a resolved configuration resolves to itself"


@given(
    length=st.floats(1, 3000),
    timesteps=st.one_of(st.just("auto"), st.integers(200, 2_000_000)),
    n_envs=st.one_of(st.just("auto"), st.integers(1, 20)),
    members=st.integers(1, 6),
    rounds=st.integers(1, 20),
)
def test_steps_and_environments_fit_together(
    length: float, timesteps: Any, n_envs: Any, members: int, rounds: int
) -> None:
    if isinstance(n_envs, int):
        n_envs *= members
        if isinstance(timesteps, int):
            timesteps = max(timesteps, rounds * n_envs)
    document = {
        "student": {"width": 8, "seeds": members},
        "rollout": {"timesteps": timesteps, "n_envs": n_envs, "rounds": rounds},
    }
    r = settle(Config.model_validate(document), length=length).rollout
    assert isinstance(r.n_envs, int) and isinstance(r.n_steps, int) and isinstance(r.timesteps, int)
    assert r.n_envs % members == 0 and r.n_envs >= members and r.n_steps >= 1
    assert r.timesteps == r.rounds * r.n_envs * r.n_steps
    if n_envs != "auto":
        assert r.n_envs == n_envs
    if timesteps == "auto":
        assert r.n_steps == min(int(np.ceil(1.5 * length)), 500), "a shard starts at a reset and must see an end"
    elif timesteps >= rounds * members:
        assert r.timesteps <= timesteps


def test_a_factory_has_no_limit() -> None:
    assert settle(Config(), factory_spec(Counting), length=1000).rollout.n_steps == 1500


def test_a_linear_member_counts_once_however_many_widths_there_are() -> None:
    config = Config.model_validate({"student": {"width": [4, 8, 12, 16], "depth": [0, 1]}, "rollout": {"n_envs": 5}})
    assert len(members_of(config.student)) == 5
    assert settle(config).rollout.n_envs == 5


def test_environments_that_do_not_divide_are_refused() -> None:
    config = Config.model_validate({"student": {"width": [4, 8, 12]}, "rollout": {"n_envs": 8}})
    with pytest.raises(InputError, match="multiple of 3"):
        settle(config)


def test_q_temperature_is_that_of_the_median_gap() -> None:
    def q(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0], x[:, 0] + 30.0, x[:, 0] - 100], -1)

    teacher = StubTeacher(q, value_teacher=True)
    assert settle(Config(), teacher=teacher).loss.q_temperature == pytest.approx(15.0, rel=1e-4)
    given_one = Config.model_validate({"loss": {"q_temperature": 3.0}})
    assert settle(given_one, teacher=teacher).loss.q_temperature == 3.0
    assert settle(Config(), teacher=StubTeacher(q)).loss.q_temperature == 1.0
    flat = StubTeacher(lambda x: torch.zeros(len(x), 3), value_teacher=True)
    assert float(settle(Config(), teacher=flat).loss.q_temperature) > 0


def test_a_gaussian_teacher_needs_no_q_temperature() -> None:
    teacher = StubTeacher(lambda x: x, DiagGaussian(1), spaces.Box(-1, 1, (1,)))
    assert settle(Config(), teacher=teacher).loss.q_temperature == 1.0


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "tpu", "mps", "meta"):
        with pytest.raises(InputError, match="device") as caught:
            resolve_device(name)
        assert "\n" not in str(caught.value)
