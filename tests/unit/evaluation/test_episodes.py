"""Fails when the return of a seed depends on how many episodes run beside it, when short episodes are favoured, or when
teacher and student meet different episodes on the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.evaluation import episodes as module
from policykd.evaluation.agreement import agreement, agreement_on, same_action
from policykd.evaluation.episodes import Actor, policy_actor, random_actor, run_episodes
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.spine.errors import Interrupted
from policykd.spine.spaces import action_map
from tests.support.core import (
    Counting,
    Quiet,
    StubTeacher,
    counting_action,
    counting_reward,
    episode_length,
)


def poor_cartpole(observation: np.ndarray) -> np.ndarray:
    """Falls sooner or later, at a time that depends on the seed."""
    return (observation[:, 2] > 0).astype(np.int64)


def swinging_car(observation: np.ndarray) -> np.ndarray:
    """Reaches the top of MountainCar in 100 to 130 steps."""
    return np.where(observation[:, 1] > 0, 2, 0)


def plain_loop(env_id: str, actor: Actor, seeds: Sequence[int]) -> tuple[list[float], list[int]]:
    env, returns, lengths = gym.make(env_id), [], []
    for seed in seeds:
        observation, over, total, length = env.reset(seed=seed)[0], False, 0.0, 0
        while not over:
            observation, reward, terminated, truncated, _ = env.step(actor(observation[None])[0])
            over, total, length = terminated or truncated, total + float(reward), length + 1
        returns.append(total)
        lengths.append(length)
    return returns, lengths


@pytest.mark.parametrize("slots", [1, 3, 32])
@pytest.mark.parametrize(("env_id", "actor"), [("CartPole-v1", poor_cartpole), ("MountainCar-v0", swinging_car)])
def test_returns_equal_a_plain_loop(env_id: str, actor: Actor, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", slots)
    seeds = [5, 900, 17, 3, 3, 2**31 - 1, 42]
    quiet = Quiet()
    found = run_episodes(EnvSpec(env_id), actor, seeds, quiet)
    returns, lengths = plain_loop(env_id, actor, seeds)
    assert len(set(lengths)) > 2, "episodes of one length show nothing"
    assert found.returns.tolist() == returns and found.lengths.tolist() == lengths
    assert quiet.done == len(seeds)


@pytest.mark.parametrize("slots", [1, 2, 5, 32])
def test_one_episode_per_seed_whatever_its_length(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", slots)
    seeds = list(range(40))
    found = run_episodes(factory_spec(Counting), counting_action, seeds, Quiet(), keep_visited=50)
    assert found.lengths.tolist() == [episode_length(seed) for seed in seeds]
    expected = [sum(counting_reward(s, t, (s + t) % 3) for t in range(episode_length(s))) for s in seeds]
    np.testing.assert_allclose(found.returns, expected)
    np.testing.assert_array_equal(found.success, [float(seed % 2 == 0) for seed in seeds])
    assert found.success_rate == 0.5
    assert 25 <= len(found.visited) <= 50 + slots
    assert all(t < episode_length(int(key)) for key, t in found.visited), "a terminal observation was kept"


def recorder(actor: Actor, firsts: list[np.ndarray]) -> Actor:
    def wrapped(observation: np.ndarray) -> np.ndarray:
        firsts.append(observation.copy())
        return actor(observation)

    return wrapped


@pytest.mark.parametrize("backend", ["sync", "native"])
def test_equal_seeds_are_equal_episodes_for_all_policies(backend: Any) -> None:
    spec, seeds, runs = EnvSpec("CartPole-v1", backend=backend), range(100, 120), []
    for actor in (poor_cartpole, lambda x: np.zeros(len(x), np.int64), random_actor(spaces.Discrete(2), 0)):
        firsts: list[np.ndarray] = []
        runs.append((run_episodes(spec, recorder(actor, firsts), seeds, Quiet()), firsts[0]))
    assert all(np.array_equal(runs[0][1], first) for _, first in runs)
    again = run_episodes(spec, poor_cartpole, seeds, Quiet())
    np.testing.assert_array_equal(again.returns, runs[0][0].returns)
    other = run_episodes(spec, poor_cartpole, range(500, 520), Quiet())
    assert not np.array_equal(other.returns, again.returns)


def test_a_stop_is_obeyed() -> None:
    class Stopping(Quiet):
        def check(self) -> None:
            if self.done:
                raise Interrupted("stopped")

    for backend in ("sync", "native"):
        with pytest.raises(Interrupted):
            run_episodes(EnvSpec("CartPole-v1", backend=backend), poor_cartpole, range(5), Stopping())


def test_policy_actor_is_the_mode_or_a_seeded_sample() -> None:
    teacher = StubTeacher(lambda x: torch.tensor([0.0, 0.3, 0.0]).expand(len(x), -1))
    x = np.zeros((500, 2), np.float32)
    assert (policy_actor(teacher, True, 0)(x) == 1).all()
    first, again, other = (policy_actor(teacher, False, seed)(x) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and len(set(first)) == 3


def test_random_actor_leaves_the_space_alone() -> None:
    space = spaces.Discrete(5)
    space.seed(3)
    expected = spaces.Discrete(5)
    expected.seed(3)
    drawn = random_actor(space, 0)(np.zeros((200, 2)))
    assert set(drawn) == set(range(5))
    assert space.sample() == expected.sample()
    assert np.array_equal(random_actor(space, 0)(np.zeros((200, 2))), drawn)


def test_agreement_of_choices() -> None:
    policy = StubTeacher(lambda x: x, Categorical(3))
    a = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 2, 1]])
    b = torch.tensor([[5.0, 0, 0], [1, 0, 0], [0, 0, 9], [0, 1, 2]])
    assert agreement(policy, a, b) == 0.5


def test_agreement_of_values_is_within_a_twentieth_of_the_range() -> None:
    box = spaces.Box(np.array([0.0, -10.0], np.float32), np.array([1.0, 10.0], np.float32))
    mapped = action_map(box, unscale=False)
    a = np.zeros((4, 2))
    b = np.array([[0.049, 0.99], [0.051, 0.0], [0.0, 1.01], [0.049, -0.99]])
    assert same_action(mapped, a, b).tolist() == [True, False, False, True]
    endless = action_map(spaces.Box(-np.inf, np.inf, (1,)), unscale=False)
    assert same_action(endless, np.zeros((2, 1)), np.array([[0.099], [0.101]])).tolist() == [True, False]
    policy = StubTeacher(lambda x: x, DiagGaussian(2), box)
    # both lie beyond the bound: as environment actions they are equal
    assert agreement(policy, torch.tensor([[3.0, 0, 0, 0]]), torch.tensor([[9.0, 0, 0, 0]])) == 1.0


def test_agreement_on_observations() -> None:
    teacher = StubTeacher(lambda x: torch.stack([x[:, 0], -x[:, 0], -9 + 0 * x[:, 0]], -1))
    student = StubTeacher(lambda x: torch.stack([x[:, 0] - 0.5, 0.5 - x[:, 0], -9 + 0 * x[:, 0]], -1))
    x = np.linspace(-1, 1, 40_000, dtype=np.float32)  # more than a chunk
    observations = np.stack([x, x], -1)
    assert agreement_on(teacher, teacher, observations) == 1.0
    assert agreement_on(teacher, student, observations) == pytest.approx(0.75, abs=1e-3)
