"""Fails when an episode boundary means something else under one autoreset mode than in a plain loop: a terminal
observation that is acted on, a step that is counted twice or lost, a reward that goes to the wrong episode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from policykd.rollout import collect as collecting
from policykd.rollout.collect import Rollout, Shard, collect, label
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.rollout.vecenv import BatchEnv, SyncEnvs, VectorEnvs, check_finite, make_batch
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.errors import InputError, NumericsError
from policykd.spine.seeding import SeedKey
from tests.support.core import (
    Counting,
    Quiet,
    StubTeacher,
    counting_action,
    counting_steps,
    episode_length,
    next_key,
)

MODES = [*AutoresetMode, None]  # None is SyncEnvs
IDS = [mode.value if mode else "sync" for mode in MODES]


def chain(key: int) -> Iterator[int]:
    """The keys of a slot's episodes, one after the other."""
    while True:
        yield key
        key = next_key(key)


def make(mode: AutoresetMode | None, n_envs: int, keys: list[int]) -> BatchEnv:
    if mode is not None:
        return VectorEnvs(SyncVectorEnv([Counting] * n_envs, autoreset_mode=mode), "counting")
    current = list(keys)

    def next_seed(slot: int) -> int:
        current[slot] = next_key(current[slot])
        return current[slot]

    return SyncEnvs(factory_spec(Counting), n_envs, next_seed)


def slot_keys(mode: AutoresetMode | None, n_envs: int, first: int) -> list[int]:
    return [(first + slot) % 1000 for slot in range(n_envs)]  # as SyncVectorEnv spreads one seed


@given(mode=st.sampled_from(MODES), n_envs=st.integers(1, 4), first=st.integers(0, 5000), steps=st.integers(1, 25))
@settings(max_examples=80, deadline=None)
def test_boundaries_equal_a_plain_loop(mode: AutoresetMode | None, n_envs: int, first: int, steps: int) -> None:
    keys = slot_keys(mode, n_envs, first)
    env = make(mode, n_envs, keys)
    seen: list[list[tuple[int, int, float, bool]]] = [[] for _ in range(n_envs)]
    observation, acting = env.reset([first + slot for slot in range(n_envs)]), np.ones(n_envs, bool)
    for _ in range(steps):
        step = env.step(counting_action(observation))
        for slot in range(n_envs):
            key, t = observation[slot].astype(int)
            if acting[slot]:
                seen[slot].append((key, t, step.reward[slot], bool(step.done[slot])))
                assert t < episode_length(key), "a terminal observation was acted on"
                expected = float(key % 2 == 0) if step.done[slot] else np.nan
                np.testing.assert_equal(step.success[slot], expected)
            else:
                assert mode is AutoresetMode.NEXT_STEP and t == episode_length(key)
                assert step.reward[slot] == 0 and not step.done[slot] and step.acting[slot]
        observation, acting = step.observation, step.acting
    for slot in range(n_envs):
        expected = list(islice(counting_steps(chain(keys[slot])), len(seen[slot])))
        assert seen[slot] == expected
        if mode is not AutoresetMode.NEXT_STEP:
            assert len(seen[slot]) == steps
    env.close()


def rolled(mode: AutoresetMode | None, monkeypatch: Any, shard: Shard, students: Any) -> tuple[Rollout, Quiet]:
    first = shard.key.episode_seed(0, 0)
    if mode is not None:
        monkeypatch.setattr(collecting, "make_batch", lambda spec, n, seeds: make(mode, n, []))
    teacher = StubTeacher(lambda x: torch.cat([x, x.sum(-1, keepdim=True)], -1))
    quiet = Quiet()
    assert first >= 2**31
    return collect(shard, factory_spec(Counting), teacher, students, quiet), quiet


def student_logits(observation: torch.Tensor) -> torch.Tensor:
    return torch.eye(3)[torch.from_numpy(counting_action(observation.numpy()))]


@pytest.mark.parametrize("mode", MODES, ids=IDS)
@pytest.mark.parametrize("root", range(4))
def test_collected_rows_equal_a_plain_loop(
    mode: AutoresetMode | None, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_envs, n_steps = 3, 17
    shard = Shard(SeedKey(root, "collect", 2), n_envs, n_steps, 0.0, RolloutConfig())
    rollout, quiet = rolled(mode, monkeypatch, shard, student_logits)
    params = label(rollout, StubTeacher(lambda x: torch.cat([x, x.sum(-1, keepdim=True)], -1)), Quiet())
    assert rollout.timesteps == int(rollout.acting.sum()) == quiet.done
    first = shard.key.episode_seed(0, 0)
    finished: list[tuple[int, float, int]] = []
    for slot in range(n_envs):
        if mode is None:
            keys: Iterator[int] = (shard.key.episode_seed(slot, k) % 1000 for k in range(10_000))
        else:
            keys = chain((first + slot) % 1000)
        rows = np.flatnonzero(rollout.acting[:, slot])
        steps = list(islice(counting_steps(keys), len(rows)))
        np.testing.assert_array_equal(rollout.observation[rows, slot], [[key, t] for key, t, _, _ in steps])
        np.testing.assert_array_equal(
            rollout.start[:, slot].nonzero()[0], [r for r, s in zip(rows, steps, strict=True) if s[1] == 0]
        )
        np.testing.assert_array_equal(params[rows, slot, 2], [key + t for key, t, _, _ in steps])
        total, length = 0.0, 0
        for _, _, reward, done in steps:
            total, length = total + reward, length + 1
            if done:
                finished.append((slot, total, length))
                total, length = 0.0, 0
    found = sorted(zip(rollout.slot.tolist(), rollout.returns.tolist(), rollout.lengths.tolist(), strict=True))
    assert [(s, n) for s, _, n in found] == [(s, n) for s, _, n in sorted(finished)]
    np.testing.assert_allclose([r for _, r, _ in found], [r for _, r, _ in sorted(finished)])
    ignored = rollout.observation[~rollout.acting]
    assert all(t == episode_length(int(key)) for key, t in ignored)
    assert (len(ignored) > 0) == (mode is AutoresetMode.NEXT_STEP)


def test_a_retired_slot_is_no_longer_stepped() -> None:
    env = SyncEnvs(factory_spec(Counting), 2, lambda slot: None if slot == 0 else 6)
    env.reset([0, 6])  # lengths 1 and 3
    step = env.step(np.zeros(2, int))
    assert step.done.tolist() == [True, False] and step.acting.tolist() == [False, True]
    assert step.observation[0].tolist() == [0, 1], "its row stays as it is"
    again = env.step(np.zeros(2, int))
    assert again.reward[0] == 0 and not again.done[0] and again.observation[0].tolist() == [0, 1]
    env.step(np.zeros(2, int))  # the other one ends
    env.start([(0, 0)])
    assert step.done.tolist() == [True, False] and not again.done.any(), "a step was changed afterwards"
    assert step.acting.tolist() == [False, True] == again.acting.tolist() and np.isnan(again.success).all()


class Broken(Counting):
    """Gives a NaN at t = 2, in the observation or in the reward."""

    where = "observation"

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.t == 2:
            if self.where == "observation":
                observation[1] = np.nan
            else:
                reward = np.inf
        return observation, reward, terminated, truncated, info


class BrokenAtReset(Counting):
    def reset(self, **kwargs: Any) -> Any:
        return np.full(2, np.nan, np.float32), super().reset(**kwargs)[1]


@pytest.mark.parametrize("mode", MODES, ids=IDS)
@pytest.mark.parametrize("quantity", ["observation", "reward"])
@pytest.mark.parametrize("key", [3, 2])  # 2 steps: the NaN is in the terminal observation; 5 steps
def test_nan_is_named(mode: AutoresetMode | None, quantity: str, key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [episode_length(3), episode_length(2)] == [2, 5]
    monkeypatch.setattr(Broken, "where", quantity)
    env = (
        VectorEnvs(SyncVectorEnv([Broken], autoreset_mode=mode))
        if mode
        else SyncEnvs(factory_spec(Broken), 1, lambda _: 3)
    )
    env.reset([key])
    env.step(np.zeros(1, int))
    with pytest.raises(NumericsError, match=f"^{quantity} is not finite") as caught:
        env.step(np.zeros(1, int))
    assert "\n" not in str(caught.value)
    if mode is None:
        assert f"seed {key}" in str(caught.value)


@pytest.mark.parametrize("mode", MODES, ids=IDS)
def test_nan_at_reset_is_named(mode: AutoresetMode | None) -> None:
    spec = factory_spec(BrokenAtReset)
    env = VectorEnvs(SyncVectorEnv([BrokenAtReset], autoreset_mode=mode)) if mode else SyncEnvs(spec, 1, lambda _: 3)
    with pytest.raises(NumericsError, match=r"^observation is not finite"):
        env.reset([3])


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e20, np.float32), (1e200, np.float64), (20.0, np.float16), (-3e38, np.float32)]
)
def test_large_numbers_are_finite_and_say_nothing(value: float, dtype: Any) -> None:
    """Their squares are not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_finite(np.full((32, 8), value, dtype), "observation", str)
        with pytest.raises(NumericsError, match="observation"):
            check_finite(np.array([[value], [np.nan]], dtype), "observation", str)
        with pytest.raises(NumericsError, match="in 1"):
            check_finite(np.array([[value], [np.inf]], dtype), "observation", str)


def test_a_vector_environment_without_a_mode_is_refused() -> None:
    env = SyncVectorEnv([Counting])
    env.metadata = {**env.metadata, "autoreset_mode": None}
    with pytest.raises(InputError, match="autoreset_mode"):
        VectorEnvs(env)


def test_native_cartpole_equals_the_vector_class() -> None:
    env = make_batch(EnvSpec("CartPole-v1", backend="native"), 3, lambda _: None)
    assert isinstance(env, VectorEnvs)
    own = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    np.testing.assert_array_equal(env.reset([5, 6, 7]), own.reset(seed=5)[0])
    done, ends = np.zeros(3, bool), 0
    for _ in range(60):
        step, (observation, reward, terminated, truncated, _) = env.step(np.ones(3, int)), own.step(np.ones(3, int))
        np.testing.assert_array_equal(step.observation, observation)
        np.testing.assert_array_equal(step.reward, np.where(done, 0, reward))
        done = (terminated | truncated) & ~done
        np.testing.assert_array_equal(step.done, done)
        np.testing.assert_array_equal(step.acting, ~done)
        ends += int(done.sum())
    assert ends > 3
