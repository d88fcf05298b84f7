"""Fails when a teacher with a memory or with masks is trained, recorded or read otherwise than by sb3-contrib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
from sb3_contrib.common.maskable.utils import get_action_masks

import policykd_envs  # noqa: F401  # registers LidarNav
from policykd.learn.train.teacher import train_teacher
from policykd.spine.config.schema import TrainConfig
from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher
from tests.support.masked import Targets

TARGETS = "TrainTargets-v0"
CLASSES = {"recurrent_ppo": sb3_contrib.RecurrentPPO, "maskable_ppo": sb3_contrib.MaskablePPO}


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gym.register(TARGETS, entry_point=Targets)
    yield
    del gym.registry[TARGETS]


def config(algo: str) -> TrainConfig:
    own = {"lstm_hidden_size": 4} if algo == "recurrent_ppo" else {}
    return TrainConfig.model_validate(
        {
            "env": {"id": "CartPole-v1" if algo == "recurrent_ppo" else TARGETS},
            "algo": algo,
            "timesteps": 128,
            "n_envs": 2,
            "device": "cpu",
            "evaluate": {"episodes": 2},
            "hyperparameters": {"n_steps": 32, "batch_size": 32},
            "policy_kwargs": {"net_arch": [8], **own},
        }
    )


@pytest.mark.parametrize("algo", CLASSES)
def test_it_is_read_as_sb3_contrib_reads_it_and_judged_alike(algo: str, tmp_path: Path) -> None:
    record = train_teacher(config(algo), tmp_path / "a")
    teacher = load_teacher(tmp_path / "a")
    assert teacher.info.algo == algo and (teacher.recurrent, teacher.masked) == (algo[0] == "r", algo[0] == "m")
    model: Any = CLASSES[algo].load(tmp_path / "a" / "teacher.zip", device="cpu")
    returns = []
    for seed in (10_000, 10_001):
        env = gym.make(record["env_id"])
        seen, total, done, state, start = env.reset(seed=seed)[0], 0.0, False, None, np.ones(1, bool)
        while not done:
            if algo == "maskable_ppo":
                action = model.predict(seen, action_masks=get_action_masks(env), deterministic=True)[0]
            else:
                action, state = model.predict(seen, state, start, deterministic=True)
            seen, reward, terminated, truncated, _ = env.step(action)
            total, done, start = total + float(reward), terminated or truncated, np.zeros(1, bool)
        returns.append(total)
    assert record["return"]["mean"] == pytest.approx(np.mean(returns), rel=1e-4)
    train_teacher(config(algo), tmp_path / "b")
    first, second = ((tmp_path / name / "teacher.zip").read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_dict_is_learned_from_as_it_is_and_not_normalised(tmp_path: Path) -> None:
    """LidarNav's entries each go through the extractor of their own."""
    small = {"n_steps": 32, "batch_size": 32}
    document = {"env": {"id": "LidarNav-v0"}, "algo": "ppo", "timesteps": 64, "device": "cpu", "hyperparameters": small}
    one = TrainConfig.model_validate({**document, "evaluate": {"episodes": 2}})
    record = train_teacher(one, tmp_path / "a")
    teacher = load_teacher(tmp_path / "a")
    assert set(teacher.observation_space) == {"lidar", "goal", "velocity", "privileged"}  # type: ignore[call-overload]
    assert np.isfinite(record["return"]["mean"])
    with pytest.raises(InputError, match="normalize: observations are a Dict"):
        train_teacher(one.model_copy(update={"normalize": True}), tmp_path / "b")
