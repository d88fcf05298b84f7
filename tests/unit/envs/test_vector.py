"""Each vector version against Gymnasium's SyncVectorEnv of the single one: slot by slot, over episodes and resets."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from policykd_envs import ENVIRONMENTS
from policykd_envs.batch import BatchEnv

IDS = [entry.id for entry in ENVIRONMENTS]
SHARING = [name for name in IDS if isinstance(gymnasium.make_vec(name), BatchEnv)]


def pair(name, n, **kwargs):
    """The vector version and the single ones, stepped by Gymnasium."""
    return tuple(
        gymnasium.make_vec(name, num_envs=n, vectorization_mode=mode, **kwargs)
        for mode in ("vector_entry_point", "sync")
    )


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("limit", [None, 1, 30])
def test_slots_play_what_single_environments_play(name, limit):
    ours, theirs = pair(name, 5, **({} if limit is None else {"max_episode_steps": limit}))
    assert type(ours) is not type(theirs)
    assert_same(ours.reset(seed=11), theirs.reset(seed=11))
    ours.action_space.seed(3)
    ended = np.zeros(5)
    for _ in range(3 * (ours.max_episode_steps + 1)):  # three whole episodes at least, each with its reset
        actions = ours.action_space.sample()
        mine = ours.step(actions)
        assert_same(mine, theirs.step(actions))
        ended += mine[2] | mine[3]
    assert (ended >= 3).all()
    assert_same(ours.reset(), theirs.reset())  # goes on with the slots' generators
    assert_same(ours.reset(seed=[5, None, 9, None, 5]), theirs.reset(seed=[5, None, 9, None, 5]))


@pytest.mark.parametrize("name", IDS)
def test_the_spaces_hold_what_comes(name):
    env = gymnasium.make_vec(name, num_envs=4)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    single = gymnasium.make(name)
    assert env.single_observation_space == single.observation_space
    assert env.single_action_space == single.action_space
    assert env.observation_space.contains(env.reset(seed=0)[0])
    env.action_space.seed(0)
    for _ in range(300):
        assert env.observation_space.contains(env.step(env.action_space.sample())[0])


@pytest.mark.parametrize("name", IDS)
def test_what_was_handed_out_stays_as_it_was(name):
    env = gymnasium.make_vec(name, num_envs=3)
    env.action_space.seed(0)
    kept = [env.reset(seed=0)]
    copies = [_copied(kept[0])]
    for _ in range(60):
        kept.append(env.step(env.action_space.sample()))
        copies.append(_copied(kept[-1]))
    for one, other in zip(kept, copies, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("name", IDS)
def test_slots_are_painted_as_single_environments(name):
    ours, theirs = pair(name, 2, render_mode="rgb_array")
    ours.reset(seed=4)
    theirs.reset(seed=4)
    ours.action_space.seed(0)
    for _ in range(4):
        actions = ours.action_space.sample()
        ours.step(actions)
        theirs.step(actions)
    for mine, reference in zip(ours.render(), theirs.render(), strict=True):
        np.testing.assert_array_equal(mine, reference)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("name", SHARING)
def test_misuse_is_refused(name):
    env = gymnasium.make_vec(name, num_envs=3)
    with pytest.raises(ResetNeeded, match="call reset first"):
        env.step(env.action_space.sample())
    with pytest.raises(ValueError, match="a list of 2, expected 3"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        gymnasium.make_vec(name, num_envs=3, render_mode="human")
    with pytest.raises(ValueError, match="expected at least 1"):
        gymnasium.make_vec(name, num_envs=0)


def _copied(value):
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_copied(one) for one in value)
    return np.array(value)
