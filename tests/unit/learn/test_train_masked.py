"""`policykd train` with action masks: MaskablePPO, on pictures."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO

import policykd_envs
from policykd.learn.train.teacher import train_teacher
from policykd.spine.config.schema import TrainConfig
from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher

assert policykd_envs
SMALL = {
    "algo": "maskable_ppo",
    "timesteps": 64,
    "n_envs": 2,
    "device": "cpu",
    "hyperparameters": {"n_steps": 32, "batch_size": 32, "n_epochs": 1},
    "policy_kwargs": {"net_arch": {"pi": [16], "vf": [16]}},
    "evaluate": {"episodes": 2},
}


@pytest.mark.parametrize("name", ["GridRaid-v0", "GridRaidMulti-v0"])
def test_a_masked_teacher_is_trained_and_measured_within_its_masks(tmp_path, name):
    out = tmp_path / "teacher"
    record = train_teacher(TrainConfig.model_validate({**SMALL, "env": {"id": name}}), out)
    model, teacher = MaskablePPO.load(out / "teacher.zip", device="cpu"), load_teacher(out)
    assert (record["algo"], teacher.info.algo) == ("maskable_ppo", "maskable_ppo")
    returns = []
    for seed in (10_000, 10_001):
        env = gym.make(name)
        observation, total, done = env.reset(seed=seed)[0], 0.0, False
        while not done:
            masks = env.unwrapped.action_masks()
            picture = np.moveaxis(observation, -1, 0)  # as SB3 trains on them
            action = model.predict(picture, action_masks=masks, deterministic=True)[0]
            np.testing.assert_array_equal(teacher.predict(picture, action_masks=masks, deterministic=True)[0], action)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    assert record["return"]["mean"] == pytest.approx(np.mean(returns))


def test_an_environment_without_masks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"env CartPole-v1: has no action_masks\(\), which maskable_ppo needs"):
        train_teacher(TrainConfig.model_validate({**SMALL, "env": {"id": "CartPole-v1"}}), tmp_path / "teacher")
