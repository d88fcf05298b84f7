"""Models and folders that several teacher tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.support.teachers import Spaces, box, write_yaml


@pytest.fixture
def normalised() -> Any:
    """A model on normalised observations, after a few steps."""
    venv = VecNormalize(DummyVecEnv([lambda: Spaces(box(4), spaces.Discrete(3))]), clip_obs=1.5)
    model = A2C("MlpPolicy", venv, device="cpu", seed=0)
    model.learn(30)
    return model


@pytest.fixture
def cartpole(tmp_path: Path) -> Path:
    PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=0).save(tmp_path / "CartPole-v1.zip")
    return tmp_path / "CartPole-v1.zip"


@pytest.fixture
def zoo(tmp_path: Path, normalised: Any) -> Path:
    """A zoo folder of LunarLander-v2, as far as its files go."""
    folder = tmp_path / "trpo" / "LunarLander-v2_1"
    details = folder / "LunarLander-v2"
    details.mkdir(parents=True)
    normalised.save(folder / "LunarLander-v2.zip")
    normalised.get_vec_normalize_env().save(str(details / "vecnormalize.pkl"))
    write_yaml(details / "config.yml", normalize="dict(norm_obs=True, norm_reward=False)")
    write_yaml(details / "args.yml", env="LunarLander-v2", env_kwargs={"gravity": -9.0})
    return folder
