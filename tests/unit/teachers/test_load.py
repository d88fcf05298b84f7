"""Every kind of source, and the one line that each wrong one ends in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, TD3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from policykd.spine.errors import InputError
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import normalizer_from_json, read_normalizer
from tests.support.teachers import Spaces, box, edit_data, members, observations, refused, write_zip


class CustomExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, 3)
        self.layer = nn.Linear(4, 3)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.layer(observation)


def test_statistics_have_the_bits_of_vecnormalize(normalised: Any, tmp_path: Path) -> None:
    venv = normalised.get_vec_normalize_env()
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    batch = observations(box(4))
    expected = venv.normalize_obs(batch)
    normaliser = read_normalizer(tmp_path / "vecnormalize.pkl")
    assert normaliser is not None
    seen = normaliser.tensors(torch.device("cpu"))(torch.from_numpy(batch))
    np.testing.assert_array_equal(seen.numpy(), expected)
    assert seen.dtype == torch.float32
    again = normalizer_from_json(json.loads(json.dumps(normaliser.to_json())), "x")
    np.testing.assert_array_equal(again.std, normaliser.std)
    assert again.clip == 1.5


def test_live_model_brings_its_statistics(normalised: Any) -> None:
    teacher = from_model(normalised)
    batch = observations(box(4))
    expected, _ = normalised.predict(normalised.get_vec_normalize_env().normalize_obs(batch), deterministic=True)
    np.testing.assert_array_equal(teacher.predict(batch, deterministic=True)[0], expected)
    assert teacher.info.normalised
    assert teacher.info.footprint.constants == 8
    assert from_model(normalised, normalised.get_vec_normalize_env()).fingerprint == teacher.fingerprint


def test_statistics_that_leave_observations_alone(tmp_path: Path) -> None:
    venv = VecNormalize(DummyVecEnv([lambda: Spaces(box(4), spaces.Discrete(3))]), norm_obs=False)
    model = PPO("MlpPolicy", venv, device="cpu")
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    assert read_normalizer(tmp_path / "vecnormalize.pkl") is None
    assert from_model(model).normalizer is None


def test_bare_zip_named_after_its_environment(cartpole: Path) -> None:
    teacher = load_teacher(cartpole)
    assert teacher.info.env_id == "CartPole-v1"
    assert teacher.info.notes == ("environment CartPole-v1 is taken from the file's name",)
    assert teacher.info.sha256 == hashlib.sha256(cartpole.read_bytes()).hexdigest()
    assert teacher.info.versions["stable_baselines3"]
    other = cartpole.rename(cartpole.with_name("my model-v2 (1).zip"))
    assert load_teacher(other).info.env_id is None
    assert load_teacher(other, env_id="CartPole-v1").info.env_id == "CartPole-v1"


def test_statistics_beside_a_bare_zip_are_not_applied(cartpole: Path) -> None:
    (cartpole.parent / "vecnormalize.pkl").write_bytes(b"")
    teacher = load_teacher(cartpole)
    assert teacher.normalizer is None
    assert "was not applied" in teacher.info.notes[-1]


def test_missing_and_foreign_files(tmp_path: Path, cartpole: Path) -> None:
    refused(tmp_path / "CartPole-v2.zip", "no such file", "did you mean", "CartPole-v1.zip")
    refused(tmp_path / "no" / "x.zip", "no such file", "nor a folder")
    refused("x" * 5000, "no such file")
    (tmp_path / "endless.zip").symlink_to("/dev/zero")
    refused(tmp_path / "endless.zip", "is a device", "expected a file or a folder")
    refused("hf:repo", "expected hf:ORG/REPO")
    refused(3, "teacher is a int", "RL-Zoo folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "no teacher to choose", "found nothing")
    text = tmp_path / "note.zip"
    text.write_text("hello")
    refused(text, "note.zip", "not a readable zip", "stable-baselines3")
    refused(write_zip(tmp_path / "other.zip", {"a": b"1"}), "without data and policy.pth")
    text.write_bytes(cartpole.read_bytes()[:-200])
    refused(text, "not a readable zip")
    refused(cartpole, "missing.pkl", "cannot be read", vec_normalize=tmp_path / "missing.pkl")


def test_statistics_of_another_teacher(cartpole: Path, tmp_path: Path) -> None:
    doc = {"format": 1, "mean": [0.0], "var": [1.0], "epsilon": 1e-8, "clip_obs": 10.0}
    (tmp_path / "n.json").write_text(json.dumps(doc))
    refused(cartpole, "shape (1,)", "takes (4,)", vec_normalize=tmp_path / "n.json")
    (tmp_path / "n.json").write_text(json.dumps(doc | {"var": [float("nan")]}))
    refused(cartpole, "n.json", "NaN", vec_normalize=tmp_path / "n.json")


def test_weights_that_diverged(cartpole: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    model.policy.action_net.weight.data[0, 0] = float("nan")
    model.save(cartpole)
    refused(cartpole, "action_net.weight", "NaN", "diverged")


def test_unsupported_models(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    PPO(
        "MlpPolicy", Spaces(box(4), spaces.Discrete(2)), policy_kwargs={"features_extractor_class": CustomExtractor}
    ).save(path)
    refused(path, "CustomExtractor", "NatureCNN", "live model in Python, or --trust")
    odd = PPO(
        "MlpPolicy", Spaces(box(4), spaces.Discrete(2)), policy_kwargs={"activation_fn": nn.LogSigmoid}, device="cpu"
    )
    odd.save(path)
    refused(path, "LogSigmoid", "tanh", "live model in Python, or --trust")
    assert load_teacher(odd).info.activation == "logsigmoid"


def test_description_and_weights_that_differ(cartpole: Path) -> None:
    space = json.loads(members(cartpole)["data"])["action_space"]
    edit_data(cartpole, action_space=space | {"n": "7", ":serialized:": ""})
    refused(cartpole, "2 outputs", "needs 7")
    edit_data(cartpole, action_space={":type:": "<class 'gymnasium.spaces.dict.Dict'>"})
    refused(cartpole, "action_space is 'Dict'")
    edit_data(cartpole, action_space=space | {":type:": 3})
    refused(cartpole, "action_space is 'missing'")


def test_large_spaces_are_printed_shortened(tmp_path: Path) -> None:
    low = -np.arange(1, 2001, dtype=np.float32) / 7
    model = PPO("MlpPolicy", Spaces(spaces.Box(low, -low), spaces.Discrete(2)), device="cpu")
    model.save(tmp_path / "m.zip")
    entry = json.loads(members(tmp_path / "m.zip")["data"])["observation_space"]
    assert "..." in entry["low"]
    np.testing.assert_array_equal(load_teacher(tmp_path / "m.zip").observation_space.low, low)
    edit_data(tmp_path / "m.zip", observation_space=entry | {":serialized:": "AAAA"})
    refused(tmp_path / "m.zip", "observation_space (Box)", "shortened")


def test_evaluate_policy_of_stable_baselines3_takes_it(cartpole: Path) -> None:
    env = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    mean, _ = evaluate_policy(load_teacher(cartpole), env, n_eval_episodes=2, warn=False)
    assert mean > 0


def test_stochastic_actions_repeat_with_their_seed(cartpole: Path) -> None:
    teacher = load_teacher(cartpole)
    batch = observations(teacher.observation_space)

    def draw() -> np.ndarray:
        teacher.seed(7)
        return teacher.predict(batch)[0]

    first = draw()
    assert 0 < first.mean() < 1
    np.testing.assert_array_equal(first, draw())
    assert not np.array_equal(first, teacher.predict(batch)[0])


def test_a_teacher_without_a_distribution_acts_by_its_mode() -> None:
    teacher = from_model(TD3("MlpPolicy", Spaces(box(4), box(2)), buffer_size=10, device="cpu"))
    batch = observations(teacher.observation_space)
    assert teacher.deterministic_teacher
    np.testing.assert_array_equal(teacher.predict(batch)[0], teacher.predict(batch, deterministic=True)[0])


def test_wrong_observations(cartpole: Path) -> None:
    teacher = load_teacher(cartpole)
    with pytest.raises(InputError, match=r"shape \(3,\), expected \(4,\) or a batch \(B, 4,\)"):
        teacher.predict(np.zeros(3))
    with pytest.raises(InputError, match=r"not\s+reset"):
        teacher.predict((np.zeros(4), {}))
    with pytest.raises(InputError, match="expected"):
        teacher.distribution_params(torch.zeros(4))
