"""RL-Zoo folders, run folders, built-in teachers, ids: what each brings, and the line each wrong one ends in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import PPO

from policykd.teachers import load as load_module
from policykd.teachers.env_ids import modern_id
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from tests.support.teachers import refused, write_yaml


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
    write_yaml(zoo / "LunarLander-v2" / "config.yml", normalize="{'norm_obs': False, 'norm_reward': True}")
    assert not load_teacher(zoo).info.normalised


def test_best_model_is_a_second_choice_without_statistics(zoo: Path) -> None:
    shutil.copy(zoo / "LunarLander-v2.zip", zoo / "best_model.zip")
    assert load_teacher(zoo).info.normalised
    refused(zoo / "best_model.zip", "belongs to the final model", "vec_normalize")
    (zoo / "LunarLander-v2.zip").unlink()
    refused(zoo, "best_model.zip", "vec_normalize")
    write_yaml(zoo / "LunarLander-v2" / "config.yml")
    assert load_teacher(zoo).info.env_id == "LunarLander-v3"


def test_zoo_settings_that_are_not_supported(zoo: Path) -> None:
    write_yaml(zoo / "LunarLander-v2" / "config.yml", vec_env_wrapper="a.b.Vec")
    refused(zoo, "vec_env_wrapper 'a.b.Vec'", "not supported")


def test_ids_that_would_import_a_module(zoo: Path) -> None:
    write_yaml(zoo / "LunarLander-v2" / "args.yml", env="evil:CartPole-v1")
    refused(zoo, "'evil:CartPole-v1'", "import")


def test_env_kwargs_of_the_zoo_are_plain(zoo: Path) -> None:
    write_yaml(zoo / "LunarLander-v2" / "args.yml", env="LunarLander-v2", env_kwargs={"a": {"b": 1}})
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
    wrappers = [{"TimeLimit": {"max_episode_steps": 9}}, "TimeFeatureWrapper"]
    expected = (("TimeLimit", {"max_episode_steps": 9}), ("TimeFeatureWrapper", {}))
    (tmp_path / "config.yaml").write_text(json.dumps({"env": {"id": "CartPole-v1", "wrappers": wrappers}}))
    info = load_teacher(tmp_path).info
    assert info.wrappers == expected and any("TimeLimit" in note for note in info.notes)
    record = {"env_id": "CartPole-v1", "algo": "ppo", "wrappers": wrappers[1:]}
    (tmp_path / "teacher.json").write_text(json.dumps(record))
    assert load_teacher(tmp_path, env_id="MountainCar-v0").info.wrappers == expected[1:]
    for hostile in (
        "x",
        [3],
        [{"a": {}, "b": {}}],
        [{"TimeLimit": 3}],
        ["../x"],
        [{"RecordVideo": {"video_folder": "x"}}],
        [{"a.b:C": {"x": [float("inf")]}}],
    ):
        (tmp_path / "teacher.json").write_text(json.dumps(record | {"wrappers": hostile}))
        refused(tmp_path, "teacher.json", "wrapper")


def test_an_id_of_the_caller_replaces_that_of_the_source(zoo: Path, cartpole: Path) -> None:
    info = load_teacher(zoo, env_id="My/Lander-v0").info
    assert (info.env_id, info.trained_on, info.env_kwargs) == ("My/Lander-v0", "LunarLander-v2", {})
    assert not any("today" in note for note in info.notes)
    assert load_teacher(zoo, env_id="LunarLander-v3").info.env_kwargs == {"gravity": -9.0}
    write_yaml(zoo / "LunarLander-v2" / "args.yml", env="evil:CartPole-v1")
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
    from policykd.learn.train.teacher import train_teacher
    from policykd.spine.config.schema import TrainConfig

    config = TrainConfig.model_validate(
        {"algo": "a2c", "env": {"id": "CartPole-v1"}, "timesteps": 40, "normalize": True, "evaluate": {"episodes": 2}}
    )
    record = train_teacher(config, tmp_path / "run")
    teacher = load_teacher(tmp_path / "run")
    assert (teacher.info.algo, teacher.info.env_id, teacher.info.sha256) == ("a2c", "CartPole-v1", record["sha256"])
    assert teacher.info.normalised


def test_devices(cartpole: Path) -> None:
    refused(cartpole, "'toaster'", "expected auto, cpu", device="toaster")
    if not torch.cuda.is_available():
        refused(cartpole, "0 CUDA devices", device="cuda")


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
    write_yaml(zoo / "LunarLander-v2" / "config.yml", normalize=True, normalize_kwargs={"norm_obs": False})
    assert not load_teacher(zoo).info.normalised
    write_yaml(zoo / "LunarLander-v2" / "config.yml", normalize=True, normalize_kwargs={"norm_reward": False})
    refused(zoo, "vecnormalize.pkl", "missing")


def test_builtin(tmp_path: Path, cartpole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "BUILTIN_FOLDER", tmp_path)
    refused("builtin:cart", "no such built-in teacher", "CartPole-v1")
    shutil.move(cartpole, tmp_path / "cartpole.zip")
    (tmp_path / "cartpole.json").write_text(json.dumps({"env_id": "CartPole-v1", "algo": "ppo"}))
    assert load_teacher("builtin:cartpole").info.env_id == "CartPole-v1"
    refused("builtin:cartpol", "did you mean builtin:cartpole?")
