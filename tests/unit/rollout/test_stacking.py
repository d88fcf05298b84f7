"""StackFrames against stable-baselines3's VecFrameStack, step by step; AtariWrapper as the zoo runs it."""

from __future__ import annotations

import copy
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from policykd.rollout.atari import WholeGames
from policykd.rollout.envs import EnvSpec, make_env, registered
from policykd.rollout.stacking import RESTARTED, StackFrames
from policykd.spine.errors import InputError
from tests.support.teachers import box

SPACES = {
    "vector": box(3),
    "one number": box(1),
    "matrix": box(2, 3),
    "double": spaces.Box(-1.0, 1.0, (4,), np.float64),
    "own bounds": spaces.Box(np.array([-1.0, -2.0], np.float32), np.array([3.0, 4.0], np.float32)),
    "integers": spaces.Box(-5, 5, (3,), np.int64),
    "channels last": spaces.Box(0, 255, (8, 7, 3), np.uint8),
    "grey": spaces.Box(0, 255, (8, 8, 1), np.uint8),
    "channels first": spaces.Box(0, 255, (2, 8, 7), np.uint8),
    "no image": spaces.Box(0, 7, (2, 8, 7), np.uint8),
    "Dict": spaces.Dict(
        {
            "vector": box(3),
            "first": spaces.Box(0, 255, (1, 8, 8), np.uint8),
            "last": spaces.Box(0, 255, (8, 8, 3), np.uint8),
        }
    ),
}


class Episodes(gym.Env[Any, Any]):
    """Random observations in episodes of random lengths, the same for equal seeds."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = copy.deepcopy(space)  # each draws its own samples

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self._left = int(self.np_random.integers(1, 9))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return self.observation_space.sample(), 0.0, self._left == 0, False, {}


def same(ours: Any, theirs: Any) -> None:
    """Equal to the first row of a vector environment's observation, bit for bit."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            same(value, theirs[key])
        return
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape[1:]
    assert ours.tobytes() == np.ascontiguousarray(theirs[0]).tobytes()


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_frames_are_those_of_stable_baselines3(name: str, n: int) -> None:
    ours, theirs = (
        StackFrames(Episodes(SPACES[name]), n),
        VecFrameStack(DummyVecEnv([lambda: Episodes(SPACES[name])]), n),
    )
    assert ours.observation_space == theirs.observation_space
    theirs.seed(7)
    same(ours.reset(seed=7)[0], theirs.reset())
    ended = 0
    for _ in range(60):
        observation, _, terminated, _, _ = ours.step(0)
        expected, _, dones, infos = theirs.step(np.zeros(1, int))
        assert terminated == dones[0]
        if terminated:
            last = infos[0]["terminal_observation"]
            same(
                observation, {key: value[None] for key, value in last.items()} if isinstance(last, dict) else last[None]
            )
            observation, ended = ours.reset()[0], ended + 1
        same(observation, expected)
    assert ended > 5


def test_an_observation_that_was_given_does_not_change() -> None:
    env = StackFrames(Episodes(box(3)), 2)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    second = env.step(0)[0]
    assert np.array_equal(first, kept) and np.array_equal(second[:3], kept[3:])
    kept, second[:] = second.copy(), 99.0  # the caller's own array
    assert np.array_equal(env.step(0)[0][:3], kept[3:])


@pytest.mark.parametrize("n", [0, -1, 65, 10**9, True, "4", None])
def test_a_number_of_frames_out_of_bounds(n: Any) -> None:
    with pytest.raises(InputError, match="1 to 64 frames"):
        make_env(EnvSpec("CartPole-v1", wrappers=(("StackFrames", {"n": n}),)))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Dict({"a": spaces.Discrete(2)}), spaces.MultiBinary(4)])
def test_what_cannot_be_stacked(space: spaces.Space[Any]) -> None:
    with pytest.raises(InputError, match="cannot stack"):
        StackFrames(Episodes(space), 2)


@pytest.mark.parametrize(("game", "seed"), [("Breakout", 3), ("Pong", 1)])
def test_a_whole_game_is_what_the_zoo_shows_life_by_life(game: str, seed: int) -> None:
    """Every observation of stable-baselines3's own pipeline, over lost lives, and the points of its Monitor."""
    wrappers = (("AtariWrapper", {"noop_max": 20}), ("StackFrames", {"n": 4}))
    ours = make_env(EnvSpec(f"{game}NoFrameskip-v4", wrappers=wrappers))
    theirs = VecFrameStack(make_atari_env(f"{game}NoFrameskip-v4", wrapper_kwargs={"noop_max": 20}), 4)
    theirs.seed(seed)
    rng, points, lives, over = np.random.default_rng(0), 0.0, 0, False
    same(ours.reset(seed=seed)[0], theirs.reset())
    for _ in range(4000):
        action = int(rng.integers(ours.action_space.n))
        observation, reward, terminated, truncated, info = ours.step(action)
        expected, _, dones, infos = theirs.step(np.array([action]))
        points += float(reward)
        over = terminated or truncated
        assert over == ("episode" in infos[0])
        if over:
            same(observation, infos[0]["terminal_observation"][None])
            assert points == infos[0]["episode"]["r"]
            break
        assert dones[0] == bool(info.get(RESTARTED))
        lives += bool(dones[0])
        same(observation, expected)
    assert over and (lives == 4 if game == "Breakout" else points < -10)


def test_every_reset_is_a_game_that_its_seed_determines() -> None:
    env = make_env(EnvSpec("SpaceInvadersNoFrameskip-v4", wrappers=(("AtariWrapper", {}),)))
    assert isinstance(env, WholeGames)
    games, lost = {}, 0
    for seed in (5, 6, 5):
        frames = [env.reset(seed=seed)[0], *(env.step(action)[0] for action in (2, 3, 2, 2))]
        assert games.setdefault(seed, np.stack(frames).tobytes()) == np.stack(frames).tobytes()
        while not lost:  # the next game begins after a lost life
            lost = bool(env.step(0)[4].get(RESTARTED))
    assert games[5] != games[6]


def test_atari_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EnvSpec("PongNoFrameskip-v4", wrappers=(("AtariWrapper", {}),))
    make_env(spec).close()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"cv2 .*policykd\[atari\]"):
        make_env(spec)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.delitem(gym.registry, "PongNoFrameskip-v4")
    with pytest.raises(InputError, match=r"PongNoFrameskip-v4: .*ale_py.*policykd\[atari\]"):
        registered(spec)


def test_atari_s_wrapper_around_another_game() -> None:
    with pytest.raises(InputError, match="AtariWrapper cannot be applied"):
        make_env(EnvSpec("CartPole-v1", wrappers=(("AtariWrapper", {}),)))
    with pytest.raises(InputError, match="AtariWrapper cannot be applied"):
        make_env(EnvSpec("PongNoFrameskip-v4", wrappers=(("AtariWrapper", {"bogus": 1}),)))
