"""Every environment of the package keeps Gymnasium's contract, and repeats itself."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from hypothesis import given, settings
from hypothesis import strategies as st

from policykd_envs import ENVIRONMENTS, register_envs

IDS = [entry.id for entry in ENVIRONMENTS]


def episode(env, seed, steps=600):
    env.action_space.seed(seed)
    yield env.reset(seed=seed)
    for _ in range(steps):
        step = env.step(env.action_space.sample())
        yield step
        if step[2] or step[3]:
            return


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_has_nothing_to_say(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*symmetric and normalized space")  # Pendulum's torque, as in Gymnasium
        check_env(gymnasium.make(name, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_equal_seeds_are_equal_episodes(name):
    one, other = gymnasium.make(name), gymnasium.make(name)
    assert all(data_equivalence(a, b, exact=True) for a, b in zip(episode(one, 7), episode(other, 7), strict=True))
    first, second = one.reset(seed=7)[0], one.reset(seed=8)[0]
    assert not data_equivalence(first, second)
    one.reset(seed=7)
    assert not data_equivalence(first, one.reset()[0])  # a later episode is another one


@pytest.mark.parametrize("name", IDS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_every_observation_lies_in_its_space(name, seed):
    env = gymnasium.make(name)
    for answer in episode(env, seed):
        assert env.observation_space.contains(answer[0])


@pytest.mark.parametrize("entry", ENVIRONMENTS, ids=IDS)
def test_episodes_end_in_time(entry):
    assert gymnasium.spec(entry.id).max_episode_steps == entry.max_episode_steps
    *_, last = episode(gymnasium.make(entry.id, max_episode_steps=3), 0)
    assert last[2] or last[3]


@pytest.mark.parametrize("name", IDS)
def test_frames_change_with_the_state(name):
    env = gymnasium.make(name, render_mode="rgb_array")
    env.reset(seed=0)
    before = np.array(env.render())
    env.step(env.action_space.sample())
    env.reset(seed=1)
    after = env.render()
    assert before.dtype == np.uint8
    assert before.shape == after.shape
    assert (before != after).any()
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_a_window_can_be_opened(name):
    pygame = pytest.importorskip("pygame", reason="pygame comes with policykd[video]")
    env = gymnasium.make(name, render_mode="human")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    surface = pygame.display.get_surface()
    assert surface is not None and len(set(map(tuple, pygame.surfarray.array3d(surface).reshape(-1, 3)))) > 1, "drawn"
    env.close()
    assert not pygame.display.get_init()


def test_registering_again_changes_nothing():
    before = {name: gymnasium.spec(name) for name in IDS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_envs()
    assert all(gymnasium.spec(name) is spec for name, spec in before.items())
