"""VecNormalize on named entries of a Dict observation, from the file and from the live wrapper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from policykd.loss.acting import as_batch
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import KeyedNormalizer, normalizer_from_json
from tests.support.teachers import Spaces, box, observations, refused

SPACE = spaces.Dict({"speed": box(3), "mode": spaces.Discrete(3), "place": box(2, 2, dtype=np.float64)})


@pytest.fixture(params=[["speed"], ["speed", "place"]], ids=["one", "two"])
def model(request: pytest.FixtureRequest) -> Any:
    venv = DummyVecEnv([lambda: Spaces(SPACE, spaces.Discrete(3))])
    model = A2C("MultiInputPolicy", VecNormalize(venv, norm_obs_keys=request.param, clip_obs=1.5), device="cpu", seed=0)
    model.learn(40)
    return model


@pytest.mark.parametrize("source", ["file", "live"])
def test_acts_as_the_model_behind_its_wrapper(model: Any, source: str, tmp_path: Path) -> None:
    wrapper = model.get_vec_normalize_env()
    if source == "file":
        model.save(tmp_path / "model.zip")
        wrapper.save(str(tmp_path / "statistics.pkl"))
        teacher = load_teacher(tmp_path / "model.zip", vec_normalize=tmp_path / "statistics.pkl")
    else:
        teacher = from_model(model)
    batch = observations(SPACE)
    normal = wrapper.normalize_obs(batch)
    np.testing.assert_array_equal(
        teacher.predict(batch, deterministic=True)[0], model.predict(normal, deterministic=True)[0]
    )
    with torch.no_grad():
        expected = model.policy.get_distribution(model.policy.obs_to_tensor(normal)[0]).distribution.logits
    logits = teacher.distribution_params(torch.from_numpy(as_batch(batch, teacher.packing)[0]))
    assert torch.equal(logits - logits.logsumexp(-1, keepdim=True), expected)


def test_goes_through_json_and_back(model: Any) -> None:
    teacher = from_model(model)
    assert isinstance(teacher.normalizer, KeyedNormalizer)
    again = normalizer_from_json(json.loads(json.dumps(teacher.normalizer.to_json())), "x")
    assert again.to_json() == teacher.normalizer.to_json()
    assert teacher.info.footprint.constants == teacher.normalizer.constants


def test_statistics_of_other_entries_are_refused(model: Any, tmp_path: Path) -> None:
    other = DummyVecEnv([lambda: Spaces(spaces.Dict({"speed": box(4)}), spaces.Discrete(3))])
    wrapper = VecNormalize(other)
    wrapper.save(str(tmp_path / "other.pkl"))
    model.save(tmp_path / "model.zip")
    refused(tmp_path / "model.zip", "'speed'", "(4,)", "(3,)", vec_normalize=tmp_path / "other.pkl")
