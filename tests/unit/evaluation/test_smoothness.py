"""Fails when the change of actions is not what a plain loop over each episode finds, or leaks over its start."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from policykd.evaluation.episodes import random_actor, run_episodes
from policykd.evaluation.smoothness import mean_change
from policykd.rollout.envs import EnvSpec, factory_spec
from tests.support.core import Counting, Quiet, counting_action, episode_length

WIDTHS = {"Pendulum-v1": 4.0, "CartPole-v1": None}


@pytest.mark.parametrize("env_id", WIDTHS)
def test_as_a_plain_loop_over_the_episodes(env_id: str) -> None:
    """More episodes than slots, longer than what is worked out at once."""
    taken: dict[int, list[Any]] = {}
    running: dict[int, int] = {}
    space = spaces.Box(-2, 2, (1,), np.float32) if env_id == "Pendulum-v1" else spaces.Discrete(2)
    chance = random_actor(space, 0)

    def acts(observation: Any, turn: Any) -> Any:
        actions = chance(observation, turn)
        for action, slot, start in zip(actions, turn.slot, turn.start, strict=True):
            if start:
                running[slot] = len(taken)
                taken[len(taken)] = []
            taken[running[slot]].append(action)
        return actions

    acts.takes_turn = True  # type: ignore[attr-defined]
    found = run_episodes(EnvSpec(env_id), acts, range(40), Quiet())
    width = WIDTHS[env_id]
    sums = [
        sum(float(np.abs(b - a).item()) / width if width else float(a != b) for a, b in pairwise(one))
        for one in taken.values()
    ]
    assert sorted(found.lengths) == sorted(map(len, taken.values()))
    assert np.allclose(sorted(found.change), sorted(sums))
    steps = sum(len(each) - 1 for each in taken.values())
    assert mean_change(found.change, found.lengths) == pytest.approx(sum(sums) / steps)


def test_of_each_seed_its_own_episode() -> None:
    found = run_episodes(factory_spec(Counting), counting_action, range(100), Quiet())
    assert found.change.tolist() == [episode_length(key) - 1 for key in range(100)]  # another action in every step
    assert mean_change(found.change, found.lengths) == 1.0


def test_an_episode_of_one_step_has_no_change() -> None:
    seeds = [key for key in range(100) if episode_length(key) == 1]
    found = run_episodes(factory_spec(Counting), counting_action, seeds, Quiet())
    assert mean_change(found.change, found.lengths) is None
