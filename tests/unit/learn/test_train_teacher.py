from __future__ import annotations

import base64
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import yaml

from policykd.learn.train_teacher import train_teacher
from policykd.spine.config.schema import TrainConfig
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.files import sha256_of
from policykd.spine.seeding import TRAINING_SEEDS_FROM
from policykd.teachers.load import load_teacher
from tests.support.teachers import members, observations

STEPS = 512
ALGOS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("CartPole-v1", {"n_steps": 128, "batch_size": 64, "learning_rate": {"linear": 0.001}}),
    "dqn": ("CartPole-v1", {"learning_starts": 64, "buffer_size": 1000}),
    "sac": ("Pendulum-v1", {"learning_starts": 64, "train_freq": 8, "buffer_size": 1000}),
}


def settings(algo: str, /, **changes: Any) -> TrainConfig:
    env, hyperparameters = ALGOS[algo]
    whole = {
        "env": {"id": env},
        "algo": algo,
        "timesteps": STEPS,
        "device": "cpu",
        "hyperparameters": hyperparameters,
        "policy_kwargs": {"net_arch": [16, 16]},
        "evaluate": {"episodes": 2},
    }
    return TrainConfig.model_validate(whole | changes)


@pytest.fixture(scope="module", params=sorted(ALGOS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp(request.param)
    train_teacher(settings(request.param), out)
    return request.param, out


def opened(algo: str, out: Path) -> Any:
    return getattr(stable_baselines3, algo.upper()).load(out / "teacher.zip", device="cpu")


def test_sb3_opens_the_zip_and_predicts_as_the_teacher_does(trained: tuple[str, Path]) -> None:
    algo, out = trained
    model, teacher = opened(algo, out), load_teacher(out)
    seen = observations(model.observation_space)
    expected = model.predict(seen, deterministic=True)[0]
    actual = teacher.predict(seen, deterministic=True)[0]
    if algo == "sac":
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    else:
        np.testing.assert_array_equal(actual, expected)


def test_sb3_can_train_the_zip_further(trained: tuple[str, Path]) -> None:
    algo, out = trained
    model = opened(algo, out)
    model.set_env(stable_baselines3.common.env_util.make_vec_env(ALGOS[algo][0]))
    model.learn(128)


def test_record(trained: tuple[str, Path]) -> None:
    algo, out = trained
    record = json.loads((out / "teacher.json").read_text())
    found = record.pop("return")
    assert record == {
        "format": 1,
        "algo": algo,
        "env_id": ALGOS[algo][0],
        "env_kwargs": {},
        "normalized": False,
        "timesteps": STEPS,
        "seed": 0,
        "command": "policykd train --config config.yaml",
        "versions": record["versions"],
        "sha256": sha256_of((out / "teacher.zip").read_bytes()),
    }
    assert record["versions"]["stable_baselines3"] == stable_baselines3.__version__
    assert record["versions"]["python"] == platform.python_version()
    expected = [episode_return(opened(algo, out), ALGOS[algo][0], seed) for seed in (10_000, 10_001)]
    assert found["mean"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert found["std"] == pytest.approx(np.std(expected), rel=1e-3, abs=1e-9)
    assert (found["episodes"], found["first_seed"], found["deterministic"]) == (2, 10_000, True)


def episode_return(model: Any, env_id: str, seed: int) -> float:
    env = gym.make(env_id)
    observation, total, over = env.reset(seed=seed)[0], 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(model.predict(observation, deterministic=True)[0])
        total, over = total + float(reward), terminated or truncated
    return total


def test_the_written_configuration_is_complete(trained: tuple[str, Path]) -> None:
    algo, out = trained
    assert TrainConfig.model_validate(yaml.safe_load((out / "config.yaml").read_text())) == settings(algo)


def test_optimizers_are_fresh_and_still_sb3s(trained: tuple[str, Path]) -> None:
    algo, out = trained
    parameters = opened(algo, out).get_parameters()
    states = {name: value for name, value in parameters.items() if name.endswith("optimizer")}
    assert states
    for state in states.values():
        assert state["state"] == {}
        assert state["param_groups"][0]["lr"] == pytest.approx({"ppo": 0.001, "dqn": 0.0001, "sac": 0.0003}[algo])


def test_the_zip_holds_no_run_and_no_machine(trained: tuple[str, Path]) -> None:
    content = members(trained[1] / "teacher.zip")
    assert "system_info.txt" not in content
    data = json.loads(content["data"])
    for name in ("_last_obs", "ep_info_buffer", "replay_buffer", "rollout_buffer", "env", "start_time", "device"):
        assert name not in data
    pickles = [base64.b64decode(v[":serialized:"]) for v in data.values() if isinstance(v, dict) and ":serialized:" in v]
    everything = b"".join([*content.values(), *pickles]).lower()
    traces = [str(Path.home()), str(Path.cwd()), sys.prefix, platform.node(), platform.release(), "site-packages"]
    assert [trace for trace in traces if len(trace) > 3 and trace.lower().encode() in everything] == []


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_equal_configurations_give_equal_bytes(algo: str, tmp_path: Path) -> None:
    records = [train_teacher(settings(algo, timesteps=128), tmp_path / name) for name in "ab"]
    assert records[0] == records[1]
    assert records[0] != train_teacher(settings(algo, timesteps=128, seed=1), tmp_path / "c")


def test_normalised(tmp_path: Path) -> None:
    record = train_teacher(settings("ppo", normalize=True, n_envs=2), tmp_path)
    statistics = json.loads((tmp_path / "normalizer.json").read_text())
    assert record["normalized"] is True
    assert len(statistics["mean"]) == len(statistics["var"]) == 4
    teacher, model = load_teacher(tmp_path), opened("ppo", tmp_path)
    seen = observations(model.observation_space)
    mean, std = np.array(statistics["mean"]), np.sqrt(np.array(statistics["var"]) + statistics["epsilon"])
    scaled = np.clip((seen - mean) / std, -statistics["clip_obs"], statistics["clip_obs"])
    agreed = teacher.predict(seen, deterministic=True)[0] == model.predict(scaled, deterministic=True)[0]
    assert agreed.mean() > 0.99


def test_a_stop_keeps_what_is_there(tmp_path: Path) -> None:
    asked = iter([False] * 200 + [True] * 10**6)
    with pytest.raises(Interrupted, match="stopped after 201 of 512 timesteps"):
        train_teacher(settings("dqn"), tmp_path, stop=lambda: next(asked))
    record = json.loads((tmp_path / "teacher.json").read_text())
    assert record["timesteps"] == 201
    assert record["return"] is None
    assert load_teacher(tmp_path).info.env_id == "CartPole-v1"


def test_a_stop_while_evaluating_keeps_the_teacher(tmp_path: Path) -> None:
    asked = iter([False] * 130 + [True] * 10**6)
    with pytest.raises(Interrupted, match="while the teacher was evaluated"):
        train_teacher(settings("ppo", timesteps=128), tmp_path, stop=lambda: next(asked))
    assert json.loads((tmp_path / "teacher.json").read_text())["return"] is None
    load_teacher(tmp_path)


def test_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int, dict[str, float]]] = []
    train_teacher(settings("ppo"), tmp_path, progress=lambda *call: calls.append(call))
    steps = [done for done, _, _ in calls]
    assert steps == sorted(steps)
    assert steps[-1] <= STEPS
    assert {total for _, total, _ in calls} == {STEPS}
    assert calls[-1][2]["return"] > 1


def test_training_seeds_are_apart_from_those_that_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seeds: list[int] = []

    class Spy(gym.Wrapper):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            if seed is not None:
                seeds.append(seed)
            return super().reset(seed=seed, options=options)

    from policykd.rollout import envs

    make: Callable[..., Any] = envs.make_env
    monkeypatch.setattr(envs, "make_env", lambda spec, mode=None: Spy(make(spec, mode)))
    train_teacher(settings("ppo", n_envs=2, timesteps=128, seed=7), tmp_path)
    assert seeds
    assert min(seeds) >= TRAINING_SEEDS_FROM


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": {}}, "env.id: missing"),
        ({"env": {"id": "CartPol-v1"}}, "did you mean CartPole-v1"),
        ({"env": {"id": "Pendulum-v1"}, "algo": "dqn", "hyperparameters": {}}, "dqn cannot be set up for Pendulum-v1"),
        ({"hyperparameters": {"gama": 0.9}}, "did you mean gamma"),
        ({"hyperparameters": {"n_steps": -3}}, "cannot be set up"),
    ],
)
def test_wrong_input(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        train_teacher(settings("ppo", **changes), tmp_path)
    assert "\n" not in str(caught.value)


def test_threads_are_given_back(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    train_teacher(settings("ppo", timesteps=128, threads=before + 1), tmp_path)
    assert torch.get_num_threads() == before
