"""Fails when a shard is not a pure function of its key, when the wrong one acts or is noted as actor, when an acting
teacher explores otherwise than configured, or when a label that is no number passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.rollout.collect import TEACHER, Rollout, Shard, _Driver, collect, label
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.errors import Interrupted, NumericsError
from policykd.spine.seeding import SeedKey
from tests.support.core import Counting, Quiet, StubTeacher

CARTPOLE = spaces.Box(-np.inf, np.inf, (4,), np.float32)
BACKENDS = ["sync", "native"]


def cartpole_teacher() -> StubTeacher:
    weight = torch.tensor([[0.0, 0.1], [0.0, 0.5], [0.0, 3.0], [0.0, 1.0]])
    return StubTeacher(lambda x: x @ weight, Categorical(2), spaces.Discrete(2), CARTPOLE)


def gather(key: SeedKey, beta: float, backend: Any = "sync", **acting: Any) -> Rollout:
    shard = Shard(key, 4, 40, beta, RolloutConfig(**acting))
    teacher = cartpole_teacher()
    return collect(shard, EnvSpec("CartPole-v1", backend=backend), teacher, lambda x: -teacher.function(x), Quiet())


def same(a: Rollout, b: Rollout) -> bool:
    fields = ("observation", "acting", "start", "actor", "returns", "lengths", "slot")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_a_shard_is_a_pure_function_of_its_key(backend: str, beta: float) -> None:
    options: dict[str, Any] = {"teacher_stochastic": True, "student_stochastic": True}
    key = SeedKey(7, "collect", 1, 0)
    first = gather(key, beta, backend, **options)
    torch.rand(5), np.random.rand(5)  # noqa: NPY002 - streams that everybody shares must not matter
    again = gather(key, beta, backend, **options)
    assert same(first, again)
    assert (first.params is None and again.params is None) or np.array_equal(first.params, again.params)
    for other in (SeedKey(7, "collect", 2, 0), SeedKey(7, "collect", 1, 1), SeedKey(8, "collect", 1, 0)):
        assert not np.array_equal(first.observation, gather(other, beta, backend, **options).observation)


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_acts(backend: str) -> None:
    key = SeedKey(0, "collect")
    by_teacher, by_students = gather(key, 1.0, backend), gather(key, 0.0, backend)
    assert (by_teacher.actor == TEACHER).all()
    assert (by_students.actor == np.arange(4)).all()
    assert by_teacher.params is not None and by_students.params is None
    mixed = gather(key, 0.3, backend)
    rows = mixed.actor != TEACHER
    assert (np.where(rows, mixed.actor, np.arange(4)) == np.arange(4)).all()
    assert abs((~rows).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / rows.size)


class Echo(Counting):
    """The observation's second number is the last action; an episode lasts forever."""

    def __init__(self) -> None:
        super().__init__()
        self.last = 0

    def step(self, action: Any) -> Any:
        self.last = int(action)
        return np.array([0, self.last], np.float32), 0.0, False, False, {}


def test_the_noted_actor_is_the_one_whose_action_was_done() -> None:
    teacher = StubTeacher(lambda x: torch.tensor([0.0, 0.0, 50.0]).expand(len(x), -1))
    shard = Shard(SeedKey(0, "collect"), 5, 60, 0.5, RolloutConfig())
    students = lambda x: torch.tensor([0.0, 50.0, 0.0]).expand(len(x), -1)  # noqa: E731
    rollout = collect(shard, factory_spec(Echo), teacher, students, Quiet())
    done = rollout.observation[1:, :, 1]
    np.testing.assert_array_equal(done, np.where(rollout.actor[:-1] == TEACHER, 2, 1))


def test_labels_do_not_depend_on_who_acted() -> None:
    rollout = gather(SeedKey(0, "collect"), 0.5)
    assert rollout.params is not None
    expected = cartpole_teacher().function(torch.from_numpy(rollout.observation)).numpy()
    np.testing.assert_allclose(rollout.params, expected, rtol=1e-5, atol=1e-6)
    late = gather(SeedKey(0, "collect"), 0.0)
    expected = cartpole_teacher().function(torch.from_numpy(late.observation)).numpy()
    np.testing.assert_allclose(label(late, cartpole_teacher(), Quiet()), expected, rtol=1e-5, atol=1e-6)


def test_students_are_needed_below_beta_one() -> None:
    shard = Shard(SeedKey(0, "collect"), 1, 1, 0.5, RolloutConfig())
    with pytest.raises(ValueError, match="students"):
        collect(shard, factory_spec(Counting), StubTeacher(lambda x: x), None, Quiet())


def actions_of(teacher: StubTeacher, n: int = 4000, **acting: Any) -> np.ndarray:
    shard = Shard(SeedKey(3, "collect"), n, 1, 1.0, RolloutConfig(**acting))
    return _Driver(shard, teacher, None).decide(np.zeros((n, 2), np.float32))[0]


def constant(values: list[float]) -> Any:
    return lambda x: torch.tensor(values).expand(len(x), -1)


def test_a_teacher_with_a_distribution_samples_or_takes_its_mode() -> None:
    teacher = StubTeacher(constant([0.0, 1.0, 0.5]))
    assert (actions_of(teacher, teacher_stochastic=False) == 1).all()
    found = np.bincount(actions_of(teacher), minlength=3) / 4000
    np.testing.assert_allclose(found, torch.tensor([0.0, 1.0, 0.5]).softmax(0), atol=0.04)


def test_a_value_teacher_explores_uniformly_now_and_then() -> None:
    teacher = StubTeacher(constant([0.0, 1.0, 0.5]), action_space=spaces.Discrete(3, start=4), value_teacher=True)
    assert (actions_of(teacher, teacher_stochastic=False) == 5).all()
    assert (actions_of(teacher, noise=0.0) == 5).all()
    found = np.bincount(actions_of(teacher, noise=0.3) - 4, minlength=3) / 4000
    np.testing.assert_allclose(found, [0.1, 0.8, 0.1], atol=0.03)


def test_a_deterministic_teacher_explores_in_units_of_the_range() -> None:
    box = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([3.0, 0.5], np.float32))
    teacher = StubTeacher(constant([1.0, 0.25, -9.0, -9.0]), DiagGaussian(2), box, deterministic_teacher=True)
    assert (actions_of(teacher, teacher_stochastic=False) == [1.0, 0.25]).all()
    noisy = actions_of(teacher, noise=0.1)
    assert noisy.dtype == np.float32 and all(box.contains(row) for row in noisy)
    np.testing.assert_allclose(noisy.std(0), [0.4, 0.05], rtol=0.08)
    np.testing.assert_allclose(noisy.mean(0), [1.0, 0.25], atol=0.03)
    endless = StubTeacher(
        constant([0.0, -9.0]), DiagGaussian(1), spaces.Box(-np.inf, np.inf, (1,)), deterministic_teacher=True
    )
    assert abs(actions_of(endless, noise=0.1).std() - 0.1) < 0.01


def test_exploration_of_bits_stays_bits() -> None:
    from policykd.loss.distributions import Bernoulli

    space = spaces.MultiBinary(3)
    teacher = StubTeacher(constant([5.0, -5.0, 5.0]), Bernoulli(3), space, deterministic_teacher=True)
    for action in actions_of(teacher, 200, noise=0.5):
        assert space.contains(action)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_label_that_is_no_number_is_named(value: float, beta: float) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        bad = x[:, 1:] >= 1  # from the second observation of an episode on
        return torch.where(bad, torch.tensor(float(value)), torch.zeros(len(x), 3))

    shard = Shard(SeedKey(0, "collect"), 2, 9, beta, RolloutConfig(teacher_stochastic=False))
    teacher = StubTeacher(function)
    rollout = collect(shard, factory_spec(Counting), teacher, lambda x: torch.zeros(len(x), 3), Quiet())
    with pytest.raises(NumericsError, match=r"^label is not finite") as caught:
        label(rollout, teacher, Quiet())
    assert "step" in str(caught.value) and "environment" in str(caught.value)


def test_a_bad_label_of_an_ignored_row_is_no_error() -> None:
    rollout = gather(SeedKey(0, "collect"), 1.0, "native")
    assert rollout.params is not None and not rollout.acting.all()
    rollout.params[~rollout.acting] = np.nan
    label(rollout, cartpole_teacher(), Quiet())


def test_a_stop_is_obeyed_between_steps() -> None:
    class Stopping(Quiet):
        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked == 5:
                raise Interrupted("stopped")

    shard, progress = Shard(SeedKey(0, "collect"), 2, 1000, 0.0, RolloutConfig()), Stopping()
    with pytest.raises(Interrupted):
        collect(shard, factory_spec(Counting), StubTeacher(lambda x: x), lambda x: torch.zeros(len(x), 3), progress)
    assert progress.asked == 5 and progress.done == 0


def test_progress_is_told_of_every_step() -> None:
    shard, progress = Shard(SeedKey(0, "collect"), 3, 37, 0.0, RolloutConfig()), Quiet()
    collect(shard, factory_spec(Counting), StubTeacher(lambda x: x), lambda x: torch.zeros(len(x), 3), progress)
    assert progress.done == 3 * 37
