"""The vector version plays the same games as the single one, bit for bit."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import policykd_envs
from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.boards import Boards
from policykd_envs.grid_raid.game import Game
from policykd_envs.grid_raid.generator import Generator, expand
from policykd_envs.grid_raid.level import make_level
from policykd_envs.grid_raid.levels import make_levels
from policykd_envs.grid_raid.single import GridRaidEnv
from policykd_envs.grid_raid.vector import GridRaidVectorEnv

assert policykd_envs
IDS = ("GridRaid-v0", "GridRaidMulti-v0")


def _random(rng, masks, multi, forbidden):
    """One action for each row of masks: an allowed one, or with the chance `forbidden` any."""
    masks = np.where(rng.random((len(masks), 1)) < forbidden, True, masks)
    scores = np.where(masks, rng.random(masks.shape), -1.0)
    if multi:
        return np.stack((scores[:, :5].argmax(1), scores[:, 5:].argmax(1)), axis=1)
    return scores.argmax(1)


def _helped(rng, envs, actions):
    """Now and then a step that brings the game on, so that doors, exits and stones occur: greedy, by looking inside."""
    for slot, env in enumerate(envs.envs):
        game = env.unwrapped._game
        tools = [action for action in range(5, 13) if game.legal(action)]
        wanted = [
            action
            for action in range(1, 5)
            if game.legal(action) and game.level.tiles[game.level.raider + rules.STEPS[action - 1]] != rules.FLOOR
        ]
        if (tools or wanted) and rng.random() < 0.7:
            action = (wanted + tools)[rng.integers(len(wanted + tools))]
            tool, direction = divmod(action - 1, 4)
            actions[slot] = (direction + 1, tool) if actions.ndim == 2 else action
    return actions


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("forbidden", [0.0, 0.3])
def test_equal_to_single_environments(name, forbidden):
    count, steps = 24, 400
    native = gymnasium.make_vec(name, num_envs=count)
    assert isinstance(native, GridRaidVectorEnv)
    single = SyncVectorEnv([lambda: gymnasium.make(name)] * count)
    rng = np.random.default_rng(7)
    events = np.zeros(4, int)
    for seed in (0, list(range(1000, 1000 + count)), None):
        pairs = [env.reset(seed=seed) for env in (native, single)]
        _same(*pairs)
        for step in range(steps // 3):
            masks = np.array([env.unwrapped.action_masks() for env in single.envs])
            if step % 2:  # a step works out what it needs where nobody has asked
                np.testing.assert_array_equal(native.action_masks(), masks)
            actions = _helped(rng, single, _random(rng, masks, native.multi, forbidden))
            one, other = native.step(actions), single.step(actions)
            _same(one, other)
            events += [one[2].sum(), one[3].sum(), one[4]["is_success"].sum(), (one[1] > 0.4).sum()]
    assert (events[[0, 1, 3]] > 10).all(), events  # ends, time-outs and rewards all occurred


def _same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one[:-1], other[:-1], strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert one[-1].keys() == other[-1].keys()
    for key, value in one[-1].items():
        assert value.dtype == other[-1][key].dtype
        np.testing.assert_array_equal(value, other[-1][key])


def test_levels_in_arrays_are_those_of_the_reference():
    seeds = range(3000)
    levels = make_levels(np.array([expand(seed) for seed in seeds], np.uint32))
    for slot, seed in enumerate(seeds):
        level = make_level(Generator(seed))
        assert levels.tiles[slot].tolist() == level.tiles
        assert levels.raider[slot] == level.raider
        assert levels.guards[:, slot].tolist() == level.guards
        assert levels.facing[:, slot].tolist() == level.facing


@pytest.mark.parametrize("levels", [1, 5])
def test_few_levels_are_the_same_in_both(levels):
    count = 6
    native = gymnasium.make_vec("GridRaid-v0", num_envs=count, levels=levels)
    single = SyncVectorEnv([lambda: gymnasium.make("GridRaid-v0", levels=levels)] * count)
    rng, seen = np.random.default_rng(3), set()
    starts = {make_level(Generator(number)).raider for number in range(levels)}
    for seed in (0, [9, 9, 3, 2, 1, 0], None):
        pairs = [env.reset(seed=seed) for env in (native, single)]
        _same(*pairs)
        for _ in range(120):
            actions = _random(rng, np.array([env.unwrapped.action_masks() for env in single.envs]), False, 0.1)
            ended = native.step(actions), single.step(actions)
            _same(*ended)
            seen |= {env.unwrapped._game.level.raider for env in single.envs if env.unwrapped._game.turn == 0}
    assert seen == starts


def test_levels_are_a_number():
    for wrong in (0, 65_537, 2.0, True):
        with pytest.raises(ValueError, match="levels is"):
            GridRaidVectorEnv(num_envs=1, levels=wrong)
        with pytest.raises(ValueError, match="levels is"):
            GridRaidEnv(levels=wrong)


def test_seeds_count_up_and_lists_are_taken():
    env = GridRaidVectorEnv(num_envs=4)
    images, _ = env.reset(seed=40)
    for slot in range(4):
        single, _ = GridRaidEnv().reset(seed=40 + slot)
        np.testing.assert_array_equal(images[slot], single)
    mixed, _ = env.reset(seed=[43, None, 41, 40])
    np.testing.assert_array_equal(mixed[[0, 2, 3]], images[[3, 1, 0]])
    own = GridRaidEnv()
    own.reset(seed=41)
    np.testing.assert_array_equal(mixed[1], own.reset()[0])
    with pytest.raises(ValueError, match="2 seeds for 4 games"):
        env.reset(seed=[1, 2])


def test_an_ended_game_begins_with_the_next_step():
    env = GridRaidVectorEnv(num_envs=2)
    env.reset(seed=3)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    for _ in range(rules.TURNS):
        before, rewards, terminated, truncated, _ = env.step(np.zeros(2, int))
        if (terminated | truncated).any():
            break
    slot = int(np.flatnonzero(terminated | truncated)[0])
    after, rewards, terminated, truncated, _ = env.step(np.full(2, 12))
    assert rewards[slot] == 0
    assert not terminated[slot]
    assert not truncated[slot]
    assert (before[slot] != after[slot]).any()


def test_observations_stay_as_they_were():
    env = GridRaidVectorEnv(num_envs=3)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    env.step(np.full(3, 1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("multi", [False, True])
def test_what_is_no_action_is_refused(multi):
    env = GridRaidVectorEnv(num_envs=2, multi=multi)
    with pytest.raises(ResetNeeded):
        env.action_masks()
    env.reset(seed=0)
    shape = (2, 2) if multi else (2,)
    for wrong in (np.full(shape, 13), np.full(shape, -1), np.zeros(shape), np.zeros(3, int)):
        with pytest.raises(InvalidAction):
            env.step(wrong)


def test_a_shorter_episode_and_pictures():
    env = gymnasium.make_vec("GridRaid-v0", num_envs=2, max_episode_steps=5, render_mode="rgb_array")
    env.reset(seed=11)
    for turn in range(1, 6):
        *_, truncated, _ = env.step(np.zeros(2, int))
        assert truncated.all() == (turn == 5)
    pictures = env.render()
    assert [picture.shape for picture in pictures] == [(480, 480, 3)] * 2


def test_keys_and_stones_in_every_hand():
    """Doors and throws are rare in play; here everyone may always open and throw, at guards that rise again."""
    count, rng = 50, np.random.default_rng(5)
    games = [Game(make_level(Generator(seed))) for seed in range(count)]
    boards, every = Boards(count), np.arange(count)
    boards.levels.put(every, make_levels(np.array([expand(seed) for seed in range(count)], np.uint32)), slice(None))
    boards.begin(every)
    throws = felled = 0
    for turn in range(60):
        boards.keys[:] = boards.stones[:] = boards.standing[:] = 1
        for game in games:
            game.keys, game.stones, game.standing = 1, 1, [True, True]
        legal = np.array([[game.legal(action) for action in range(rules.N_ACTIONS)] for game in games])
        wanted = rng.random(legal.shape) + legal * (rng.random((count, 1)) < 0.8) + (np.arange(13) > 4) * 0.5
        choice = wanted.argmax(1)
        allowed = legal[every, choice]
        if turn % 2:
            np.testing.assert_array_equal(boards.legal().T, legal)
        else:
            np.testing.assert_array_equal(boards.allowed(choice), allowed)
        turns = boards.play(choice, allowed, allowed, np.ones(count, np.bool_))
        results = [game.play(int(action), bool(may)) for game, action, may in zip(games, choice, allowed, strict=True)]
        assert turns.reward.tolist() == [result.reward for result in results]
        assert turns.caught.tolist() == [result.caught for result in results]
        assert boards.standing.T.tolist() == [game.standing for game in games]
        assert boards.levels.tiles.tolist() == [game.level.tiles for game in games]
        assert boards.levels.guards.T.tolist() == [game.level.guards for game in games]
        throws += ((choice > 8) & allowed).sum()
        felled += (~boards.standing).sum()
    assert throws == felled > 200
