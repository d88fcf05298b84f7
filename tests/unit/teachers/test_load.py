"""Every kind of source, and the one line that each wrong one ends in."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO, TD3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from policykd.spine.errors import InputError
from policykd.teachers import load as load_module
from policykd.teachers.env_ids import modern_id
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import normalizer_from_json, read_normalizer
from tests.support.teachers import Spaces, box, edit_data, members, observations, write_zip


class CustomExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, 3)
        self.layer = nn.Linear(4, 3)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.layer(observation)


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
    _yaml(details / "config.yml", normalize="dict(norm_obs=True, norm_reward=False)")
    _yaml(details / "args.yml", env="LunarLander-v2", env_kwargs={"gravity": -9.0})
    return folder


def _yaml(path: Path, **values: Any) -> None:
    pairs = [[key, value] for key, value in values.items()]
    path.write_text("!!python/object/apply:collections.OrderedDict\n- " + json.dumps(pairs))


def refused(source: Any, *parts: str, **kwargs: Any) -> None:
    """The source is refused in one line that holds the parts."""
    with pytest.raises(InputError) as error:
        load_teacher(source, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


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


def test_zoo_folder(zoo: Path, normalised: Any) -> None:
    teacher = load_teacher(zoo)
    assert teacher.info.algo == "trpo"  # the folder says so; an A2C zip leaves it open
    assert (teacher.info.env_id, teacher.info.trained_on) == ("LunarLander-v3", "LunarLander-v2")
    assert teacher.info.env_kwargs == {"gravity": -9.0}
    assert "environment LunarLander-v2 is LunarLander-v3 today" in teacher.info.notes
    assert any("vecnormalize.pkl are applied" in note for note in teacher.info.notes)
    assert teacher.fingerprint == from_model(normalised).fingerprint
    assert load_teacher(zoo / "LunarLander-v2.zip").fingerprint == teacher.fingerprint


def test_zoo_folder_without_its_statistics(zoo: Path) -> None:
    statistics = zoo / "LunarLander-v2" / "vecnormalize.pkl"
    kept = shutil.move(statistics, zoo / "kept.pkl")
    refused(zoo, str(statistics), "missing", "vec_normalize")
    assert load_teacher(zoo, vec_normalize=kept).info.normalised
    _yaml(zoo / "LunarLander-v2" / "config.yml", normalize="{'norm_obs': False, 'norm_reward': True}")
    assert not load_teacher(zoo).info.normalised


def test_best_model_is_a_second_choice_without_statistics(zoo: Path) -> None:
    shutil.copy(zoo / "LunarLander-v2.zip", zoo / "best_model.zip")
    assert load_teacher(zoo).info.normalised
    refused(zoo / "best_model.zip", "belongs to the final model", "vec_normalize")
    (zoo / "LunarLander-v2.zip").unlink()
    refused(zoo, "best_model.zip", "vec_normalize")
    _yaml(zoo / "LunarLander-v2" / "config.yml")
    assert load_teacher(zoo).info.env_id == "LunarLander-v3"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"env_wrapper": "sb3_contrib.common.wrappers.TimeFeatureWrapper"}, ["env_wrapper", "TimeFeatureWrapper"]),
        ({"env_wrapper": [{"a.B": {"horizon": 2}}]}, ["env_wrapper", "not supported yet"]),
        ({"frame_stack": 4}, ["frame_stack 4", "not supported yet"]),
    ],
)
def test_zoo_settings_that_are_not_supported(zoo: Path, values: dict[str, Any], parts: list[str]) -> None:
    _yaml(zoo / "LunarLander-v2" / "config.yml", **values)
    refused(zoo, *parts)


def test_ids_that_would_import_a_module(zoo: Path) -> None:
    _yaml(zoo / "LunarLander-v2" / "args.yml", env="evil:CartPole-v1")
    refused(zoo, "'evil:CartPole-v1'", "import")


def test_env_kwargs_of_the_zoo_are_plain(zoo: Path) -> None:
    _yaml(zoo / "LunarLander-v2" / "args.yml", env="LunarLander-v2", env_kwargs={"a": {"b": 1}})
    refused(zoo, "env_kwargs", "plain values")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LunarLander-v2", "LunarLander-v3"),
        ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3"),
        ("Hopper-v3", "Hopper-v4"),
        ("Humanoid-v2", "Humanoid-v4"),
        ("CartPole-v0", "CartPole-v0"),
        ("Pendulum-v0", "Pendulum-v1"),
        ("Walker2d-v5", "Walker2d-v5"),
        ("NoSuch-v0", "NoSuch-v0"),
        ("ALE/NoSuch-v5", "ALE/NoSuch-v5"),
        ("Unversioned", "Unversioned"),
    ],
)
def test_todays_ids(old: str, new: str) -> None:
    assert modern_id(old, "x") == (new, None if old == new else f"environment {old} is {new} today")


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


def test_run_folder(tmp_path: Path, normalised: Any) -> None:
    run = tmp_path / "run"
    run.mkdir()
    normalised.save(run / "teacher.zip")
    record = {"env_id": "CartPole-v1", "algo": "a2c", "env_kwargs": {"sutton_barto_reward": True}, "normalized": True}
    (run / "teacher.json").write_text(json.dumps(record))
    refused(run, "normalizer.json", "missing")
    live = from_model(normalised)
    assert live.normalizer is not None
    (run / "normalizer.json").write_text(json.dumps(live.normalizer.to_json()))
    teacher = load_teacher(str(run))
    assert teacher.fingerprint == live.fingerprint
    assert (teacher.info.env_id, teacher.info.env_kwargs) == ("CartPole-v1", {"sutton_barto_reward": True})
    (run / "teacher.json").write_text(json.dumps(record | {"sha256": "0" * 64}))
    refused(run, "sha256 differs")
    (run / "teacher.json").write_text("{")
    refused(run, "teacher.json", "no readable JSON")


def test_run_folder_of_a_distillation_holds_a_student(tmp_path: Path, cartpole: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    refused(run, "run folder of policykd distill", "load_student")  # not finished
    (run / "student.safetensors").write_bytes(b"")
    refused(run, "run folder of policykd distill", "result.json")
    refused(run / "student.safetensors", "is a student", "load_student")
    shutil.copy(cartpole, run / "teacher.zip")
    assert load_teacher(run).info.algo == "ppo"


def test_run_folder_of_a_training_behind_wrappers(tmp_path: Path, cartpole: Path) -> None:
    shutil.copy(cartpole, tmp_path / "teacher.zip")
    (tmp_path / "config.yaml").write_text("env: {id: CartPole-v1, wrappers: [{name: TimeAwareObservation}]}")
    assert any("config.yaml" in note and "wrappers" in note for note in load_teacher(tmp_path).info.notes)


def test_an_id_of_the_caller_replaces_that_of_the_source(zoo: Path, cartpole: Path) -> None:
    info = load_teacher(zoo, env_id="My/Lander-v0").info
    assert (info.env_id, info.trained_on, info.env_kwargs) == ("My/Lander-v0", "LunarLander-v2", {})
    assert not any("today" in note for note in info.notes)
    assert load_teacher(zoo, env_id="LunarLander-v3").info.env_kwargs == {"gravity": -9.0}
    _yaml(zoo / "LunarLander-v2" / "args.yml", env="evil:CartPole-v1")
    info = load_teacher(zoo, env_id="CartPole-v1").info
    assert (info.env_id, info.trained_on) == ("CartPole-v1", None)
    info = load_teacher(cartpole, env_id="Other-v1").info
    assert (info.env_id, info.notes) == ("Other-v1", ())
    live = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    assert load_teacher(live).info.env_id == "CartPole-v1"
    assert load_teacher(live, env_id="Other-v1").info.env_id == "Other-v1"
    assert load_teacher(load_teacher(live), env_id="Other-v1").info.env_id == "Other-v1"


@pytest.mark.parametrize("name", load_module.builtin_names())
def test_builtin_teachers_load(name: str) -> None:
    teacher = load_teacher(f"builtin:{name}")
    env = gym.make(teacher.info.env_id, **teacher.info.env_kwargs)
    observation, _ = env.reset(seed=0)
    assert env.action_space.contains(teacher.predict(observation, deterministic=True)[0])
    env.close()


def test_a_builtin_teacher_without_its_statistics(
    tmp_path: Path, cartpole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "BUILTIN_FOLDER", tmp_path)
    shutil.move(cartpole, tmp_path / "x.zip")
    refused("builtin:x", "x.json", "record")
    (tmp_path / "x.json").write_text(json.dumps({"env_id": "CartPole-v1", "normalized": True}))
    refused("builtin:x", "x.normalizer.json", "missing")
    doc = {"format": 1, "mean": [0.0] * 4, "var": [1.0] * 4, "epsilon": 1e-8, "clip_obs": 10.0}
    (tmp_path / "x.normalizer.json").write_text(json.dumps(doc))
    assert load_teacher("builtin:x").info.notes == ("statistics of builtin:x are applied",)


def test_what_policykd_train_writes(tmp_path: Path) -> None:
    from policykd.learn.train_teacher import train_teacher
    from policykd.spine.config.schema import TrainConfig

    config = TrainConfig.model_validate(
        {"algo": "a2c", "env": {"id": "CartPole-v1"}, "timesteps": 40, "normalize": True, "evaluate": {"episodes": 1}}
    )
    record = train_teacher(config, tmp_path / "run")
    teacher = load_teacher(tmp_path / "run")
    assert (teacher.info.algo, teacher.info.env_id, teacher.info.sha256) == ("a2c", "CartPole-v1", record["sha256"])
    assert teacher.info.normalised


def test_devices(cartpole: Path) -> None:
    refused(cartpole, "'toaster'", "expected cpu", device="toaster")
    if not torch.cuda.is_available():
        refused(cartpole, "no CUDA device", device="cuda")


def test_zoo_folder_without_its_zip(zoo: Path) -> None:
    (zoo / "LunarLander-v2.zip").unlink()
    refused(zoo, "no teacher to choose", "expected LunarLander-v2.zip")


def test_zoo_folder_with_a_truncated_zip(zoo: Path) -> None:
    path = zoo / "LunarLander-v2.zip"
    whole = path.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(zoo, "LunarLander-v2.zip", "not a readable zip")


def test_keyword_arguments_of_the_zoo_s_normaliser(zoo: Path) -> None:
    (zoo / "LunarLander-v2" / "vecnormalize.pkl").unlink()
    _yaml(zoo / "LunarLander-v2" / "config.yml", normalize=True, normalize_kwargs={"norm_obs": False})
    assert not load_teacher(zoo).info.normalised
    _yaml(zoo / "LunarLander-v2" / "config.yml", normalize=True, normalize_kwargs={"norm_reward": False})
    refused(zoo, "vecnormalize.pkl", "missing")


def test_builtin(tmp_path: Path, cartpole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "BUILTIN_FOLDER", tmp_path)
    refused("builtin:cart", "no such built-in teacher", "CartPole-v1")
    shutil.move(cartpole, tmp_path / "cartpole.zip")
    (tmp_path / "cartpole.json").write_text(json.dumps({"env_id": "CartPole-v1", "algo": "ppo"}))
    assert load_teacher("builtin:cartpole").info.env_id == "CartPole-v1"
    refused("builtin:cartpol", "did you mean builtin:cartpole?")


def test_missing_and_foreign_files(tmp_path: Path, cartpole: Path) -> None:
    refused(tmp_path / "CartPole-v2.zip", "no such file", "did you mean", "CartPole-v1.zip")
    refused(tmp_path / "no" / "x.zip", "no such file", "nor a folder")
    refused("x" * 5000, "no such file")
    refused("hf:org/repo", "not supported yet")
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
    refused(path, "CustomExtractor", "MlpPolicy")
    RecurrentPPO("MlpLstmPolicy", Spaces(box(4), spaces.Discrete(2)), device="cpu").save(path)
    refused(path, "RecurrentActorCriticPolicy", "expected one of", "ActorCriticPolicy")
    env = Spaces(spaces.Dict({"a": box(2)}), spaces.Discrete(2))
    model = PPO("MultiInputPolicy", env, device="cpu")
    model.save(path)
    refused(path, "MultiInputActorCriticPolicy")
    refused(model, "MultiInputActorCriticPolicy")
    image = PPO("CnnPolicy", Spaces(spaces.Box(0, 255, (36, 36, 3), np.uint8), spaces.Discrete(2)), device="cpu")
    refused(image, "ActorCriticCnnPolicy")
    odd = PPO(
        "MlpPolicy", Spaces(box(4), spaces.Discrete(2)), policy_kwargs={"activation_fn": nn.LogSigmoid}, device="cpu"
    )
    odd.save(path)
    refused(path, "LogSigmoid", "tanh")
    refused(odd, "LogSigmoid")


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
