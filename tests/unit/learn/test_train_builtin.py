"""The teachers that come with the package, and the configurations that train teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3

from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.learn.train.record import StopProgress
from policykd.learn.train.teacher import train_teacher
from policykd.rollout.envs import EnvSpec
from policykd.spine.config.load import load_train_config, shipped_folder, shipped_names
from policykd.spine.config.schema import TrainConfig
from policykd.spine.files import sha256_of
from policykd.teachers.load import BUILTIN_FOLDER, builtin_names, load_teacher
from tests.support.teachers import observations

NAMES = ("cartpole", "lunarlander", "pendulum")
AIMS = {"cartpole": 500.0, "lunarlander": 240.0, "pendulum": -150.0}
CONFIGS = [name for name in shipped_names() if name.startswith("teachers/")]
# what makes a few hundred steps fast; everything else stays as the file says
SMALL = {"n_steps": 32, "batch_size": 64, "learning_starts": 64, "buffer_size": 1000}


def record(name: str) -> dict[str, Any]:
    return json.loads((BUILTIN_FOLDER / f"{name}.json").read_text())


def needs(env_id: str) -> None:
    """Skips where what the environment is drawn or simulated with is absent."""
    module, extra = {"LunarLander-v3": ("Box2D", "box2d"), "BipedalWalker-v3": ("Box2D", "box2d")}.get(
        env_id, ("mujoco", "mujoco") if "Cheetah" in env_id else ("gymnasium", "")
    )
    pytest.importorskip(module, reason=f"{env_id} needs {module}: pip install policykd[{extra}]")


def test_together_they_are_small() -> None:
    assert tuple(builtin_names()) == NAMES
    assert sum(path.stat().st_size for path in BUILTIN_FOLDER.iterdir()) < 4_000_000


@pytest.mark.parametrize("name", NAMES)
def test_record(name: str) -> None:
    found = record(name)
    config = load_train_config(f"teachers/{name}", [], {})
    assert found["sha256"] == sha256_of((BUILTIN_FOLDER / f"{name}.zip").read_bytes())
    assert found["command"] == f"policykd train --config teachers/{name}"
    assert (found["algo"], found["env_id"], found["seed"]) == (config.algo, config.env.id, config.seed)
    assert found["timesteps"] >= config.timesteps
    assert found["return"]["mean"] >= AIMS[name]
    assert (found["return"]["episodes"], found["return"]["first_seed"]) == (100, 10_000)


@pytest.mark.parametrize("name", NAMES)
def test_sb3_opens_them(name: str) -> None:
    model = getattr(stable_baselines3, record(name)["algo"].upper()).load(BUILTIN_FOLDER / f"{name}.zip", device="cpu")
    assert model.policy_kwargs["net_arch"] == [256, 256]
    optimizers = [value for key, value in model.get_parameters().items() if key.endswith("optimizer")]
    assert [value["state"] for value in optimizers] == [{}] * len(optimizers)
    seen = observations(model.observation_space)
    actions = load_teacher(f"builtin:{name}").predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(actions, model.predict(seen, deterministic=True)[0], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_return(name: str) -> None:
    """A few of the recorded episodes: their mean lies where a sample of that size must."""
    needs(record(name)["env_id"])
    said, episodes = record(name)["return"], 8
    teacher = load_teacher(f"builtin:{name}")
    spec = EnvSpec(str(teacher.info.env_id))
    seeds = range(said["first_seed"], said["first_seed"] + episodes)
    actor = policy_actor(teacher, deterministic=True, seed=0)
    returns = run_episodes(spec, actor, seeds, StopProgress(lambda: False, Path())).returns
    assert abs(returns.mean() - said["mean"]) <= 4 * said["std"] / np.sqrt(episodes)


def test_every_shipped_teacher_has_its_configuration() -> None:
    assert {f"teachers/{name}" for name in NAMES} < set(CONFIGS)
    assert {"teachers/bipedalwalker", "teachers/halfcheetah"} <= set(CONFIGS)
    assert len(CONFIGS) == len(list((shipped_folder() / "teachers").glob("*.yaml")))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it is
    config = load_train_config(name, [], {})
    assert config.env.id is not None
    needs(config.env.id)
    small = {key: value for key, value in SMALL.items() if key in config.hyperparameters or key == "buffer_size"}
    if config.algo in ("ppo", "maskable_ppo", "recurrent_ppo"):
        small.pop("buffer_size")
    changes = {"timesteps": 256, "evaluate": {"episodes": 2}, "device": "cpu"}
    shrunk = config.model_dump() | changes | {"hyperparameters": config.hyperparameters | small}
    result = train_teacher(TrainConfig.model_validate(shrunk), tmp_path / "out")
    assert np.isfinite(result["return"]["mean"])
    assert load_teacher(tmp_path / "out").info.env_id == gym.spec(config.env.id).id
