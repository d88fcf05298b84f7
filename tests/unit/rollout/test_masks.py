"""Fails when a mask is not the one of the current state, when an environment without masks is taken for a teacher that
needs them, or when anybody acts against a mask while collecting."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.evaluation.agreement import agreement_on
from policykd.evaluation.episodes import policy_actor, random_actor, run_episodes
from policykd.loss.distributions import Categorical
from policykd.rollout.collect import TEACHER, Rollout, Shard, collect, label
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.rollout.fit import fit
from policykd.rollout.vecenv import make_batch
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.errors import InputError, NumericsError
from policykd.spine.seeding import SeedKey
from tests.support.core import Counting, Quiet, StubTeacher


def fitted(policy: Any, name: str, spec: EnvSpec) -> EnvSpec:
    return fit(policy, name, spec)[1]


class Masked(Counting):
    """Allows action (key + t) % 3 and, at even t, the one behind it; refuses the others."""

    def action_masks(self) -> list[bool]:
        first = (self.key + self.t) % 3
        return [a == first or (self.t % 2 == 0 and a == (first + 1) % 3) for a in range(3)]

    def step(self, action: Any) -> Any:
        assert self.action_masks()[int(action)], "a masked action was taken"
        return super().step(action)


def masks_of(observation: np.ndarray) -> np.ndarray:
    """What `Masked` allows at observations [..., 2]."""
    key, t = observation[..., :1].astype(int), observation[..., 1:].astype(int)
    action = np.arange(3)
    return (action == (key + t) % 3) | ((t % 2 == 0) & (action == (key + t + 1) % 3))


def teacher(function: Any = None, **more: Any) -> StubTeacher:
    function = function or (lambda x: torch.tensor([3.0, 1.0, 2.0]).expand(len(x), -1))
    return StubTeacher(function, masked=True, **more)


def spec() -> EnvSpec:
    return fitted(teacher(), "the teacher", factory_spec(Masked))


def test_the_mask_belongs_to_the_next_action_through_wrappers() -> None:
    wrapped = fitted(teacher(), "it", factory_spec(lambda: gym.wrappers.TimeLimit(Masked(), 3)))
    assert wrapped.masked and wrapped.backend == "sync"
    counts = iter(range(100, 10_000))
    env = make_batch(wrapped, 4, lambda _: next(counts))
    observation = env.reset([1, 2, 3, 4])
    for _ in range(20):
        assert env.mask is not None
        np.testing.assert_array_equal(env.mask, masks_of(observation))
        step = env.step(env.mask.argmax(-1))
        observation = step.observation
        np.testing.assert_array_equal(step.mask, masks_of(observation))
    env.close()


def test_masks_are_not_asked_for_without_need() -> None:
    plain = fitted(StubTeacher(lambda x: x), "it", factory_spec(Masked))
    assert not plain.masked and make_batch(plain, 2, lambda _: None).mask is None


def test_a_native_class_gives_way() -> None:
    gym.register("policykd-test/MaskedNative-v0", Masked, vector_entry_point=lambda **_: None)
    native = EnvSpec("policykd-test/MaskedNative-v0", backend="native")
    assert fitted(teacher(), "it", native) == EnvSpec(native.id, backend="sync", masked=True)


def test_an_environment_without_masks_is_refused() -> None:
    with pytest.raises(InputError, match=r"^env Counting: has no action_masks\(\), which the teacher needs") as caught:
        fitted(teacher(), "the teacher", factory_spec(Counting))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        ([True, True], InputError, r"has shape \(2,\)"),
        ([False] * 3, NumericsError, "allows nothing"),
        (1 / 2, InputError, r"has shape \(\)"),
    ],
)
def test_a_bad_mask_names_environment_and_seed(mask: Any, error: Any, text: str) -> None:
    class Bad(Masked):
        def action_masks(self) -> Any:
            return mask if self.t else [True] * 3

    env = make_batch(fitted(teacher(), "it", factory_spec(Bad)), 2, lambda _: 7)
    env.reset([2, 3])
    with pytest.raises(error, match=rf"^env Bad, the episode with seed [23]: .*{text}"):
        env.step(np.array([2, 0]))


def test_a_mask_that_raises_names_the_place() -> None:
    class Raising(Masked):
        def action_masks(self) -> Any:
            raise KeyError("board")

    env = make_batch(fitted(teacher(), "it", factory_spec(Raising)), 1, lambda _: 7)
    with pytest.raises(InputError, match="the episode with seed 2: it raised KeyError"):
        env.reset([2])


def gather(beta: float, **acting: Any) -> Rollout:
    shard = Shard(SeedKey(7, "collect", 1, 0), 4, 60, beta, RolloutConfig(**acting))
    return collect(shard, spec(), teacher(), lambda x: torch.tensor([0.0, 5.0, 9.0]).expand(len(x), -1), Quiet())


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("stochastic", [False, True])
def test_nobody_acts_against_a_mask_and_labels_hold_it(beta: float, stochastic: bool) -> None:
    rollout = gather(beta, teacher_stochastic=stochastic, student_stochastic=stochastic)
    assert rollout.mask is not None
    np.testing.assert_array_equal(rollout.mask, masks_of(rollout.observation))
    params = label(rollout, teacher(), Quiet())
    np.testing.assert_array_equal(params, np.where(rollout.mask, [3.0, 1.0, 2.0], -np.inf))
    assert (rollout.actor == TEACHER).all() if beta == 1 else (rollout.actor != TEACHER).any()


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_an_infinity_that_no_mask_explains_is_still_found(beta: float) -> None:
    broken = teacher(lambda x: torch.tensor([-np.inf, 1.0, 2.0]).expand(len(x), -1))
    shard = Shard(SeedKey(7, "collect", 1, 0), 4, 9, beta, RolloutConfig(teacher_stochastic=False))
    rollout = collect(shard, spec(), broken, lambda x: torch.zeros(len(x), 3), Quiet())
    with pytest.raises(NumericsError, match="label is not finite"):
        label(rollout, broken, Quiet())


def test_policies_and_chance_obey_in_episodes() -> None:
    seeds = range(40)
    for actor in (
        policy_actor(teacher(), False, 0),
        policy_actor(teacher(), True, 0),
        random_actor(spaces.Discrete(3), 0),
    ):
        found = run_episodes(spec(), actor, seeds, Quiet(), keep_visited=1000)
        assert found.masks is not None
        np.testing.assert_array_equal(found.masks, masks_of(found.visited))
    other = StubTeacher(lambda x: torch.tensor([3.0, 2.0, 1.0]).expand(len(x), -1), Categorical(3))
    free = agreement_on(teacher(), other, found.visited)
    under = agreement_on(teacher(), other, found.visited, found.masks)
    expected = np.where(found.masks, [3.0, 1, 2], -9).argmax(-1) == np.where(found.masks, [3.0, 2, 1], -9).argmax(-1)
    assert free == 1.0 and under == pytest.approx(expected.mean()) and under < 1.0


def test_chance_is_uniform_over_what_is_allowed() -> None:
    from policykd.spine.types import Turn

    n = 6000
    mask = np.tile(np.array([[True, False, True, True]]), (n, 1))
    turn = Turn(np.zeros(n, np.int64), np.zeros(n, np.bool_), mask)
    drawn = random_actor(spaces.Discrete(4, start=10), 0)(np.zeros((n, 1)), turn) - 10
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / n, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
    mask = np.tile(np.array([[True, False, True, True, False, True]]), (n, 1))
    turn = Turn(np.zeros(n, np.int64), np.zeros(n, np.bool_), mask)
    bits = random_actor(spaces.MultiBinary(3), 0)(np.zeros((n, 1)), turn)
    assert bits.dtype == np.int8
    np.testing.assert_allclose(bits.mean(0), [0, 0.5, 1], atol=0.03)
