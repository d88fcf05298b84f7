"""A teacher whose statistics lie in a file of their own: given by --vec-normalize, kept with the run."""

from __future__ import annotations

import pytest

from policykd import InputError, api, distill, load_config, resume
from policykd.learn.judging.judge import Judging
from tests.integration.test_ways_in import SMALL


@pytest.fixture
def normalised(tmp_path):
    """A CartPole teacher that sees normalised observations, saved as stable-baselines3 saves it."""
    import gymnasium as gym
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]), norm_reward=False)
    model = PPO("MlpPolicy", env, n_steps=512, device="cpu", seed=1).learn(6000)
    model.save(tmp_path / "mine.zip")
    env.save(str(tmp_path / "stats.pkl"))
    return tmp_path


def test_statistics_are_applied_and_kept(normalised, monkeypatch):
    monkeypatch.chdir(normalised)
    cli = {"teacher": "mine.zip", "env": "CartPole-v1", "vec_normalize": "stats.pkl"}
    run = distill(load_config(None, SMALL, cli), out="run")
    assert run.result["teacher"]["constants"] == 8
    again = api.evaluate("mine.zip", env="CartPole-v1", how=Judging(episodes=6, vec_normalize="stats.pkl"))
    assert again["return"] == run.result["teacher"]["return"]
    (run.folder / "result.json").unlink()
    monkeypatch.chdir(normalised.parent)
    resumed = resume(normalised / "run")  # from another folder: the places are kept absolute
    assert resumed.result["student"]["return"] == run.result["student"]["return"]


def test_a_missing_file_of_statistics_is_named(normalised):
    cli = {"teacher": str(normalised / "mine.zip"), "env": "CartPole-v1", "vec_normalize": str(normalised / "no.pkl")}
    with pytest.raises(InputError, match=r"no\.pkl"):
        distill(load_config(None, SMALL, cli), out=normalised / "run")
    assert not (normalised / "run").exists()
