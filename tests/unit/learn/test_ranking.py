"""Judging teachers before they teach, on real episodes."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from policykd import api
from policykd.evaluation.entropy import entropy_on
from policykd.evaluation.stats import mean_interval
from policykd.learn.judging.judge import Judging
from policykd.learn.judging.ranking import _difference, latency_us
from policykd.learn.setup.session import Work
from policykd.report.ranking import ranking_table
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.packing import packing_of
from policykd.spine.stop import NeverStop, StopFlag
from policykd.spine.tracker import NullTracker
from policykd.teachers.load import load_teacher

CARTPOLE = "builtin:cartpole"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ranking") / "untrained.zip"
    PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, device="cpu").save(path)
    return path


@pytest.fixture(scope="module")
def ranked(untrained):
    return api.rank([untrained, CARTPOLE], env="CartPole-v1", how=Judging(6))


def test_best_return_first_with_figures_as_evaluate_gives_them(ranked, untrained):
    best, worst = ranked
    assert (best["source"], worst["source"]) == (CARTPOLE, str(untrained))
    assert [one["judged"]["rank"] for one in ranked] == [1, 2]
    again = api.evaluate(CARTPOLE, how=Judging(6))
    assert best["judged"]["return"] == again["return"]
    assert best["judged"]["length"] == again["length"] == 500
    assert best["judged"]["params"] == best["params"]
    assert best["judged"]["above_random"] is True
    assert worst["judged"]["above_random"] is False
    assert best["judged"]["random"] == worst["judged"]["random"]
    assert 0 < best["judged"]["entropy"] < np.log(2)
    assert best["judged"]["latency_us"] > 0
    json.dumps(ranked, allow_nan=False)


def test_teachers_may_observe_one_environment_differently_and_are_paid_alike(tmp_path):
    """Stacked frames do not change what an episode is worth; a shorter one does."""
    env = gym.wrappers.FlattenObservation(gym.make("CartPole-v1"))
    for name, n, wrappers in (
        ("plain", 1, []),
        ("stacked", 2, ["FlattenObservation", {"StackFrames": {"n": 2}}]),
        ("short", 1, [{"TimeLimit": {"max_episode_steps": 20}}]),
    ):
        venv = VecFrameStack(DummyVecEnv([lambda: env]), n)
        model = PPO("MlpPolicy", venv, policy_kwargs={"net_arch": [4]}, device="cpu", seed=0)
        (tmp_path / name).mkdir()
        model.save(tmp_path / name / "teacher.zip")
        record = {"env_id": "CartPole-v1", "algo": "ppo", "wrappers": wrappers}
        (tmp_path / name / "teacher.json").write_text(json.dumps(record))
    assert len(api.rank([tmp_path / "plain", tmp_path / "stacked"], how=Judging(2))) == 2
    with pytest.raises(InputError, match="v1 behind TimeLimit .*, but .*plain to CartPole-v1: returns of different"):
        api.rank([tmp_path / "plain", tmp_path / "short"], how=Judging(2))


def test_the_gap_is_paired_by_seed(ranked):
    gap = ranked[0]["judged"]["over_next"]
    means = [one["judged"]["return"]["mean"] for one in ranked]
    assert gap["mean"] == pytest.approx(means[0] - means[1])
    assert gap["clear"] is True
    assert ranked[1]["judged"]["over_next"] is None
    # Large differences between seeds hide nothing when they are the same for both.
    base = np.array([0.0, 100.0, 200.0, 300.0])
    assert _difference(base + np.array([1.0, 1.1, 0.9, 1.0]), base)["clear"] is True
    assert _difference(base, base)["clear"] is False
    assert _difference(base[::-1], base)["clear"] is False
    assert mean_interval(base)[0] < 0


def test_entropy_is_the_mean_over_states_and_none_without_a_distribution():
    teacher = load_teacher(CARTPOLE)
    states = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    p = torch.softmax(teacher.distribution_params(torch.from_numpy(states)), -1).double()
    assert entropy_on(teacher, states) == pytest.approx(float(-(p * p.log()).sum(-1).mean()), rel=1e-4)
    from stable_baselines3 import DQN, TD3

    for kind, env in ((DQN, "CartPole-v1"), (TD3, "Pendulum-v1")):
        model = kind("MlpPolicy", env, device="cpu", buffer_size=10, policy_kwargs={"net_arch": [4]})
        observations = np.zeros((2, *model.observation_space.shape), np.float32)
        assert entropy_on(load_teacher(model), observations) is None


def test_latency_uses_one_thread_and_gives_the_others_back():
    class Timed:
        threads: set[int] = set()
        packing = packing_of(gym.spaces.Box(-1, 1, (4,)))

        def predict(self, observation, deterministic):
            assert (observation.shape, deterministic) == ((4,), True)
            self.threads.add(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        latency_us(Timed(), np.zeros((3, 4)), Work(NullTracker(), NeverStop()))
        assert (Timed.threads, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


def test_different_environments_are_refused_in_one_line():
    with pytest.raises(
        InputError, match=r"^builtin:pendulum: belongs to Pendulum-v1, but builtin:cartpole .*--env ID$"
    ):
        api.rank([CARTPOLE, "builtin:pendulum"], how=Judging(2))
    with pytest.raises(InputError, match="no source"):
        api.rank([])


def test_a_stop_is_obeyed():
    stop = StopFlag()
    stop.request("SIGTERM")
    with pytest.raises(Interrupted):
        api.rank([CARTPOLE], how=Judging(2), stop=stop)


def test_the_table_says_it_in_80_columns(ranked):
    text = ranking_table(ranked)
    assert max(map(len, text.splitlines())) <= 80
    assert "clearly better than 2" in text
    assert text.splitlines()[2].endswith("NO")
    equal = [ranked[0], ranked[0]]
    equal[0]["judged"]["over_next"] = {"mean": 0.0, "ci95": [0.0, 0.0], "clear": False}
    assert "NOT clearly better" in ranking_table(equal)
