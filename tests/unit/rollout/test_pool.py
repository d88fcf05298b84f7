"""Fails when an environment of envpool has other spaces, rewards or ends than Gymnasium's, when the teacher is worth
something else in it, when a seed does not determine its episode, or when what it cannot do is not refused in one line.

What can be compared exactly is: where the state can be set in Gymnasium (CartPole, Pendulum, HalfCheetah), both are
driven from one state by scripted actions. LunarLander's terrain cannot be set, so there the episodes of equal policies
are compared as samples.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy.stats import ks_2samp

from policykd.evaluation.episodes import policy_actor, random_actor, run_episodes
from policykd.rollout.collect import Shard, collect
from policykd.rollout.envs import EnvSpec, env_spec, factory_spec, teacher_spec
from policykd.rollout.masks import with_masks
from policykd.rollout.vecenv import make_batch
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.spine.seeding import SeedKey
from policykd.spine.spaces import same_shape
from policykd.teachers.load import load_teacher
from tests.support.core import Counting, Quiet, StubTeacher

needs = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("envpool"),
    reason="envpool is not installed: pip install 'policykd[envpool]' (Python 3.11, 825 MB)",
)


def pool(env_id: str) -> EnvSpec:
    return env_spec(EnvConfig(id=env_id, backend="envpool"))


def at_state(env_id: str, observation: np.ndarray) -> gym.Env[Any, Any]:
    """Gymnasium's environment in the state that the observation shows."""
    env = gym.make(env_id)
    env.reset(seed=0)
    own: Any = env.unwrapped
    if env_id.startswith("CartPole"):
        own.state = observation.astype(np.float64)
    elif env_id.startswith("Pendulum"):
        own.state = np.array([np.arctan2(observation[1], observation[0]), observation[2]], np.float64)
    else:  # the place along the track is not observed, and nothing depends on it
        own.set_state(np.concatenate([[0.0], observation[:8]]), observation[8:])
    return env


@needs
@pytest.mark.parametrize(("env_id", "exact", "error"), [("CartPole-v1", 500, 1e-6), ("Pendulum-v1", 20, 1e-3)])
def test_scripted_actions_from_one_state_give_one_course(env_id: str, exact: int, error: float) -> None:
    agrees(env_id, 500, error, exact)


@needs
@pytest.mark.parametrize("env_id", ["HalfCheetah-v4", "HalfCheetah-v5"])
def test_the_physics_of_mujoco_agrees_before_it_is_chaos(env_id: str) -> None:
    pytest.importorskip("mujoco")
    agrees(env_id, 20, 1e-6)


def agrees(env_id: str, steps: int, error: float, exact: int = 500) -> None:
    seeds, ends = list(range(30, 36)), 0
    batch = make_batch(pool(env_id), len(seeds), lambda _: None)
    seen = batch.reset(seeds)
    singles = [at_state(env_id, row) for row in seen]
    assert same_shape(batch.observation_space, singles[0].observation_space)
    assert batch.action_space == singles[0].action_space
    batch.action_space.seed(0)
    running = np.ones(len(seeds), bool)
    for t in range(steps):
        actions = np.stack([batch.action_space.sample() for _ in seeds])
        step = batch.step(actions)
        for slot in np.flatnonzero(running):
            observation, reward, terminated, truncated, _ = singles[slot].step(actions[slot])
            if t < exact:
                np.testing.assert_allclose(step.observation[slot], observation, rtol=error, atol=error)
                np.testing.assert_allclose(step.reward[slot], reward, rtol=max(error, 1e-6), atol=error)
            assert step.done[slot] == (terminated or truncated)
            ends += int(step.done[slot])
        running = step.acting
        if not running.any():
            break
    assert ends == (len(seeds) if env_id[0] in "CP" else 0)


@needs
def test_a_random_policy_has_the_same_episodes_on_lunarlander() -> None:
    pytest.importorskip("Box2D")
    found = []
    for backend in ("sync", "envpool"):
        spec = env_spec(EnvConfig(id="LunarLander-v3", backend=backend))
        actor = random_actor(gym.make("LunarLander-v3").action_space, 0)
        found.append(run_episodes(spec, actor, range(200), Quiet()))
    for name in ("returns", "lengths"):
        assert ks_2samp(getattr(found[0], name), getattr(found[1], name)).pvalue > 1e-3


@needs
@pytest.mark.parametrize("source", ["builtin:cartpole", "builtin:lunarlander", "builtin:pendulum"])
def test_the_teacher_is_worth_the_same(source: str) -> None:
    teacher = load_teacher(source)
    by = {}
    for backend in ("sync", "envpool"):
        spec = teacher_spec(EnvConfig(backend=backend), teacher.info)
        assert spec.backend == backend
        by[backend] = run_episodes(spec, policy_actor(teacher, True, 0), range(200), Quiet()).returns
    a, b = by["sync"], by["envpool"]
    assert abs(a.mean() - b.mean()) <= 4 * np.sqrt((a.var() + b.var()) / 200)


@needs
def test_a_seed_is_an_episode_whatever_stands_beside_it() -> None:
    teacher = load_teacher("builtin:cartpole")
    spec = teacher_spec(EnvConfig(backend="envpool"), teacher.info)
    always = lambda seen: np.zeros(len(seen), np.int64)  # noqa: E731
    whole = run_episodes(spec, always, range(300), Quiet(), keep_visited=100)
    some = run_episodes(spec, always, [7, 150, 299], Quiet())
    np.testing.assert_array_equal(whole.returns[[7, 150, 299]], some.returns)
    assert len(set(whole.returns.tolist())) > 1 and len(whole.visited) > 0
    np.testing.assert_array_equal(whole.lengths, whole.returns)  # a point a step, and none after the end


@needs
def test_a_shard_is_a_pure_function_of_its_key() -> None:
    teacher = load_teacher("builtin:cartpole")
    spec = teacher_spec(EnvConfig(backend="envpool"), teacher.info)

    def gather(root: int) -> Any:
        config = RolloutConfig(kernel="numpy")
        return collect(Shard(SeedKey(root, "collect", 1), 5, 700, 1.0, config), spec, teacher, None, Quiet())

    first, again, other = gather(0), gather(0), gather(1)
    for name in ("observation", "acting", "start", "returns", "lengths", "slot", "params"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name), err_msg=name)
    assert not np.array_equal(first.observation, other.observation)
    assert first.acting.all() and len(first.returns) >= 5
    rows = np.argwhere(first.start[1:])
    assert len(rows) == len(first.returns) - (first.lengths.sum() == 3500)
    assert all(abs(first.observation[t + 1, slot]).max() <= 0.05 for t, slot in rows), "no first observation"


@needs
@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"id": "CartPole-v1", "wrappers": ["ClipAction"]}, "CartPole-v1 has wrappers or kwargs"),
        ({"id": "LunarLander-v3", "kwargs": {"continuous": True}}, "LunarLander-v3 has wrappers or kwargs"),
        ({"id": "Taxi-v4"}, "Taxi-v4 is not in it"),
    ],
)
def test_what_it_does_not_have_is_refused(config: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=rf"^env\.backend envpool: {line}; use env\.backend=sync or async$"):
        env_spec(EnvConfig(**config, backend="envpool"))


@needs
def test_masks_and_functions_are_refused() -> None:
    with pytest.raises(InputError, match=r"^env\.backend envpool: CartPole-v1 has no action masks"):
        with_masks(StubTeacher(lambda x: x, masked=True), "the teacher", pool("CartPole-v1"))
    with pytest.raises(InputError, match=r"^env\.backend envpool: it has no environment function Counting"):
        factory_spec(Counting, EnvConfig(backend="envpool"))


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(InputError, match=r"^env\.backend envpool: .*pip install 'policykd\[envpool\]'") as caught:
        pool("CartPole-v1")
    assert "\n" not in str(caught.value)
