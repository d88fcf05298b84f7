"""Fails when the shaped reward pays for going to and fro, or anything else differs from GridRaid."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import policykd_envs
from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.game import Game
from policykd_envs.grid_raid.generator import Generator
from policykd_envs.grid_raid.level import make_level
from tests.support.grid_raid import solve


@pytest.mark.parametrize("seed", range(5))
def test_only_the_reward_differs_and_by_the_way_that_was_made(seed: int) -> None:
    plain, shaped = gymnasium.make("GridRaid-v0"), gymnasium.make(policykd_envs.SHAPED)
    np.testing.assert_array_equal(plain.reset(seed=seed)[0], shaped.reset(seed=seed)[0])
    way = solve(Game(make_level(Generator(seed))))
    assert way is not None
    extra, events = 0.0, 0
    for action in way:
        one, other = plain.step(action), shaped.step(action)
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(
            plain.unwrapped.action_masks(),  # type: ignore[attr-defined]
            shaped.get_wrapper_attr("action_masks")(),
        )
        assert one[2:] == other[2:]
        paid = (other[1] - one[1]) / (2 * rules.UNIT)
        assert paid in (-1, 0, 1)
        happened = one[1] > 0.4 and not one[2]  # leaving changes no tile
        assert not (happened and paid), "what is picked up or opened is paid by the game itself"
        extra += paid
        events += happened
    assert one[2] and one[4]["is_success"] and events >= 5
    assert 0 < extra <= len(way) - events


def test_to_and_fro_earns_nothing() -> None:
    env = gymnasium.make(policykd_envs.SHAPED)
    env.reset(seed=0)
    game: Game = env.unwrapped._game  # type: ignore[attr-defined]
    game.standing = [False, False]  # the guards are elsewhere
    walks = [a for a in range(1, 5) if game.level.tiles[game.level.raider + rules.STEPS[a - 1]] == rules.FLOOR]
    assert walks
    for there in walks:
        rewards = [float(env.step(action)[1]) for action in (there, 1 + (there + 1) % 4)]
        assert sum(rewards) == 2 * rules.TURN_REWARD * rules.UNIT and rewards[0] != rewards[1]
