"""Fails when a parameter is not drawn per episode from its seed, does not begin from its first value, or when one that
cannot be varied is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policykd.learn.setup.disturbing import randomisable
from policykd.rollout.disturbance import Disturbance
from policykd.rollout.envs import EnvSpec, factory_spec, make_env
from policykd.rollout.vecenv import make_batch
from policykd.spine.config.robust import RobustConfig
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError


def varied(env_id: str, **parameters: Any) -> EnvSpec:
    pairs = tuple((path.replace("__", "."), low, high) for path, (low, high) in parameters.items())
    return EnvSpec(env_id, disturbance=Disturbance(parameters=pairs))


def test_each_episode_has_its_own_factor_of_the_first_value() -> None:
    env = make_env(varied("Pendulum-v1", g=(0.5, 1.5), max_speed=(2, 2)))
    found = []
    for seed in range(200):
        env.reset(seed=seed)
        found.append(env.unwrapped.g)
    assert env.unwrapped.max_speed == 16
    assert 5 <= min(found) < 5.5 and 14.5 < max(found) <= 15
    assert abs(np.mean(found) - 10) < 0.7
    env.reset(seed=17)
    assert env.unwrapped.g == found[17]
    env.reset()
    assert env.unwrapped.g != found[17]


def test_a_parameter_does_not_depend_on_the_others() -> None:
    alone, beside = (
        make_env(varied("CartPole-v1", length=(0.5, 2))),
        make_env(varied("CartPole-v1", gravity=(0.5, 2), length=(0.5, 2))),
    )
    for seed in range(3):
        alone.reset(seed=seed), beside.reset(seed=seed)
        assert alone.unwrapped.length == beside.unwrapped.length
        assert beside.unwrapped.length / 0.5 != pytest.approx(beside.unwrapped.gravity / 9.8)


def test_what_moves_is_moved_by_it() -> None:
    """A pendulum without gravity, hanging at rest, stays where it is."""

    def step(factor: float) -> Any:
        env = make_env(varied("Pendulum-v1", g=(factor, factor)))
        env.reset(seed=1)
        return env.step(np.zeros(1, np.float32))[0]

    plain = gym.make("Pendulum-v1")
    plain.reset(seed=1)
    assert np.array_equal(step(1.0), plain.step(np.zeros(1, np.float32))[0])
    assert not np.array_equal(step(1.0), step(0.5))


def test_workers_draw_the_same() -> None:
    seen = []
    for backend in ("sync", "async"):
        spec = EnvSpec("Pendulum-v1", backend=backend, disturbance=Disturbance(parameters=(("g", 0.5, 1.5),)))  # type: ignore[arg-type]
        env = make_batch(spec, 3, lambda slot: slot + 50)
        env.reset([1, 2, 3])
        seen.append([env.step(np.zeros((3, 1), np.float32)).observation for _ in range(5)])
        env.close()
    assert np.array_equal(*seen)


def test_arrays_of_mujoco_are_scaled_as_a_whole() -> None:
    pytest.importorskip("mujoco")
    env = make_env(varied("InvertedPendulum-v5", model__opt__gravity=(0.5, 2), model__body_mass=(2, 2)))
    plain = gym.make("InvertedPendulum-v5").unwrapped
    env.reset(seed=0)
    first = env.unwrapped.model.opt.gravity.copy()
    assert np.array_equal(env.unwrapped.model.body_mass, 2 * plain.model.body_mass)
    assert first[2] != plain.model.opt.gravity[2] and (first[:2] == 0).all()
    env.reset(seed=1)
    assert env.unwrapped.model.opt.gravity[2] != first[2]
    env.reset(seed=0)
    assert np.array_equal(env.unwrapped.model.opt.gravity, first)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (
            "gravty",
            "gravty: env CartPole-v1 has no attribute 'gravty' in CartPoleEnv; did you mean gravity",
        ),
        ("kinematics_integrator", "has str there, expected a number or an array of floats"),
        ("action_space", "has Discrete there"),
        ("gravity.real", "does not let it be set"),
        ("spec.order_enforce", "has bool there"),
        ("action_space.start", "which no factor changes"),
    ],
)
def test_what_cannot_be_varied_is_refused(path: str, line: str) -> None:
    with pytest.raises(InputError) as raised:
        make_env(EnvSpec("CartPole-v1", disturbance=Disturbance(parameters=((path, 0.5, 1.5),))))
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_vector_classes_are_refused_where_they_were_asked_for() -> None:
    robust = RobustConfig(parameters={"gravity": [0.8, 1.2]}, collect=True)
    native = EnvSpec("CartPole-v1", backend="native")
    assert randomisable(native, robust, "auto").backend == "sync"
    assert randomisable(native, RobustConfig(), "native") is native
    with pytest.raises(InputError, match=r"^env\.backend native: it cannot vary robust\.parameters \(gravity\)"):
        randomisable(native, robust, "native")


class _HandsOutCopies(gym.Env[Any, Any]):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    @property
    def masses(self) -> Any:
        return np.array([1.0, 2.0])

    def reset(self, **how: Any) -> Any:
        return np.zeros(2, np.float32), {}


def test_a_property_that_hands_out_copies_is_refused() -> None:
    def make() -> Any:
        return _HandsOutCopies()

    spec = factory_spec(make, EnvConfig())
    pair = (("masses", 0.5, 0.6),)
    with pytest.raises(InputError, match="does not let it be set"):
        make_env(replace(spec, disturbance=Disturbance(parameters=pair)))
