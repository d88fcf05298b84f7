from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
import yaml

from policykd.learn.train.teacher import train_teacher
from policykd.spine.config.schema import TrainConfig
from policykd.spine.errors import InputError, Interrupted, NumericsError
from policykd.teachers.load import BUILTIN_FOLDER, load_teacher

ROOT = Path(__file__).parents[3]
SMALL = {
    "timesteps": 512,
    "n_envs": 2,
    "device": "cpu",
    "evaluate": {"episodes": 2},
    "policy_kwargs": {"net_arch": [16]},
}
OFF_POLICY = {"learning_starts": 64, "train_freq": 8, "buffer_size": 1000}
RUNS = {
    "ppo": {"env": {"id": "CartPole-v1"}, "hyperparameters": {"n_steps": 64, "batch_size": 32}, "normalize": True},
    "dqn": {"env": {"id": "CartPole-v1"}, "hyperparameters": OFF_POLICY},
    "sac": {"env": {"id": "Pendulum-v1"}, "hyperparameters": {**OFF_POLICY, "action_noise": {"normal": 0.1}}},
}


def config(algo: str = "ppo", **changes) -> TrainConfig:
    return TrainConfig.model_validate({**SMALL, "algo": algo, **RUNS[algo], **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folders: dict[str, tuple[Path, dict]] = {}

    def get(algo: str) -> tuple[Path, dict]:
        if algo not in folders:
            out = tmp_path_factory.mktemp(algo) / "teacher"
            folders[algo] = out, train_teacher(config(algo), out)
        return folders[algo]

    return get


def sb3_load(algo: str, path: Path):
    return getattr(sb3, algo.upper()).load(path, device="cpu")


def observations(space, n: int = 64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *space.shape)).astype(np.float32)


@pytest.mark.parametrize("algo", RUNS)
def test_folder_holds_what_the_record_says(trained, algo):
    out, record = trained(algo)
    files = {"teacher.zip", "teacher.json", "config.yaml"} | ({"normalizer.json"} if algo == "ppo" else set())
    assert {path.name for path in out.iterdir()} == files
    assert json.loads((out / "teacher.json").read_text()) == record
    assert record["sha256"] == hashlib.sha256((out / "teacher.zip").read_bytes()).hexdigest()
    assert TrainConfig.model_validate(yaml.safe_load((out / "config.yaml").read_text())) == config(algo)
    assert set(record["versions"]) == {"python", "torch", "stable_baselines3", "gymnasium", "numpy"}
    assert (record["algo"], record["normalized"], record["timesteps"]) == (algo, algo == "ppo", 512)


@pytest.mark.parametrize("algo", RUNS)
def test_sb3_and_policykd_read_the_same_policy(trained, algo):
    out, _ = trained(algo)
    model, teacher = sb3_load(algo, out / "teacher.zip"), load_teacher(out)
    seen = raw = observations(model.observation_space)
    if algo == "ppo":
        doc = json.loads((out / "normalizer.json").read_text())
        mean, std = np.asarray(doc["mean"]), np.sqrt(np.asarray(doc["var"]) + doc["epsilon"])
        seen = np.clip((raw - mean) / std, -doc["clip_obs"], doc["clip_obs"]).astype(np.float32)
    expected = model.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(teacher.predict(raw, deterministic=True)[0], expected, atol=1e-6)


@pytest.mark.parametrize("algo", RUNS)
def test_return_is_that_of_single_seeded_episodes(trained, algo):
    out, record = trained(algo)
    teacher, returns = load_teacher(out), []
    for seed in (10_000, 10_001):
        env = gym.make(record["env_id"])
        observation, total, done = env.reset(seed=seed)[0], 0.0, False
        while not done:
            action = teacher.predict(observation, deterministic=True)[0]
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    assert record["return"]["mean"] == pytest.approx(np.mean(returns), rel=1e-4)


@pytest.mark.parametrize("algo", RUNS)
def test_zip_holds_no_optimizer_state_and_no_trace_of_the_machine(trained, algo):
    with zipfile.ZipFile(trained(algo)[0] / "teacher.zip") as archive:
        names = archive.namelist()
        optimizers = [name for name in names if "optimizer" in name]
        for name in optimizers:
            assert torch.load(io.BytesIO(archive.read(name)), weights_only=True)["state"] == {}
        data = json.loads(archive.read("data"))
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert optimizers
    assert "system_info.txt" not in names
    assert not {"_last_obs", "ep_info_buffer", "start_time", "replay_buffer", "rollout_buffer", "env"} & set(data)
    assert "/" not in "".join(path for path in [data["policy_class"]["__module__"], data["policy_class"]["__init__"]])


@pytest.mark.parametrize("algo", RUNS)
def test_equal_seeds_give_equal_bytes(trained, algo, tmp_path):
    train_teacher(config(algo), tmp_path)
    assert (tmp_path / "teacher.zip").read_bytes() == (trained(algo)[0] / "teacher.zip").read_bytes()
    other = train_teacher(config(algo, seed=1), tmp_path)
    assert other["sha256"] != trained(algo)[1]["sha256"]


def test_training_can_go_on_from_the_zip(trained):
    model = sb3.SAC.load(trained("sac")[0] / "teacher.zip", env=gym.make("Pendulum-v1"), device="cpu")
    model.learn(100)
    assert model.actor.optimizer.state_dict()["state"] != {}


def test_schedule_activation_and_layers_reach_the_model(tmp_path):
    hyperparameters = {"n_steps": 64, "batch_size": 32, "learning_rate": {"linear": 0.001}}
    kwargs = {"net_arch": {"pi": [8], "vf": [4]}, "activation_fn": "relu"}
    train_teacher(config(hyperparameters=hyperparameters, policy_kwargs=kwargs, normalize=False), tmp_path)
    model = sb3_load("ppo", tmp_path / "teacher.zip")
    assert [model.lr_schedule(x) for x in (1.0, 0.5, 0.0)] == pytest.approx([1e-3, 5e-4, 0.0])
    assert isinstance(model.policy.mlp_extractor.policy_net[1], torch.nn.ReLU)
    assert model.policy.mlp_extractor.value_net[0].out_features == 4


def test_progress_counts_up_to_the_total(tmp_path):
    calls = []
    train_teacher(config(), tmp_path, progress=lambda *call: calls.append(call))
    steps = [done for done, _, _ in calls]
    assert steps == sorted(set(steps))
    assert (steps[-1], calls[-1][1]) == (512, 512)
    assert calls[-1][2]["return"] > 0


@pytest.mark.parametrize(("polls", "message"), [(20, r"after 40 of 512"), (300, "while the teacher was evaluated")])
def test_a_stop_keeps_what_is_there(tmp_path, polls, message):
    asked = iter(range(10_000))
    with pytest.raises(Interrupted, match=message):
        train_teacher(config(), tmp_path, stop=lambda: next(asked) >= polls - 1)
    record = json.loads((tmp_path / "teacher.json").read_text())
    assert record["return"] is None
    assert load_teacher(tmp_path).info.sha256 == record["sha256"]


def test_statistics_of_an_earlier_teacher_do_not_stay(tmp_path):
    (tmp_path / "normalizer.json").write_text("{}")
    train_teacher(config("dqn"), tmp_path)
    assert not (tmp_path / "normalizer.json").exists()


def test_threads_are_put_back(tmp_path):
    before = torch.get_num_threads()
    with pytest.raises(InputError):
        train_teacher(config(threads=before + 1, hyperparameters={"nope": 1}), tmp_path)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyperparameters": {"learning_rat": 1.0}}, "ppo has no such parameter; did you mean learning_rate"),
        ({"hyperparameters": {"zzz": 1.0}}, "known: learning_rate, n_steps"),
        ({"hyperparameters": {"seed": 1}}, "hyperparameters.seed: not given here; set seed"),
        ({"hyperparameters": {"rollout_buffer_class": "os:system"}}, "cannot name a class"),
        ({"hyperparameters": {"learning_rate": "lin_3e-4"}}, r"write a number or \{linear: number\}"),
        ({"hyperparameters": {"learning_rate": {"linear": "3e-4"}}}, r"expected \{linear: number\}"),
        ({"hyperparameters": {"n_steps": 64.5}}, "n_steps: 64.5 does not fit; expected a whole number"),
        ({"hyperparameters": {"gamma": None}}, "gamma: None does not fit"),
        ({"hyperparameters": {"n_steps": 0}}, "ppo cannot be set up for CartPole-v1"),
        ({"policy_kwargs": {"activation": "relu"}}, "did you mean activation_fn"),
        ({"policy_kwargs": {"activation_fn": "__import__('os')"}}, "expected one of tanh, relu, elu"),
        ({"policy_kwargs": {"net_arch": [0]}}, "expected widths from 1 to 4096"),
        ({"policy_kwargs": {"net_arch": {"pi": [8], "qf": [8]}}}, r"\{pi: \[64, 64\], vf"),
        ({"policy_kwargs": {"optimizer_class": "SGD"}}, "cannot name a class"),
        ({"env": {"id": None}}, "env.id: missing"),
        ({"env": {"id": "CartPole-v9"}}, "not a registered environment"),
        ({"env": {"id": "Blackjack-v1"}, "normalize": False}, "observation space is not supported"),
        ({"device": "cuda:77"}, "device 'cuda:77'"),
        ({"algo": "sac", "env": {"id": "CartPole-v1"}}, "sac cannot be set up for CartPole-v1"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        train_teacher(config(**changes), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unwritable_place_is_wrong_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        train_teacher(config(), tmp_path / "file")


def test_weights_that_diverged_are_not_written(tmp_path):
    hyperparameters = {"n_steps": 64, "batch_size": 32, "learning_rate": 1e30}
    with pytest.raises(NumericsError, match=r"not finite.*learning_rate"):
        train_teacher(config(hyperparameters=hyperparameters), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cartpole", "lunarlander", "pendulum"])
def test_built_in_teachers_are_what_their_records_say(name):
    content = (BUILTIN_FOLDER / f"{name}.zip").read_bytes()
    record = json.loads((BUILTIN_FOLDER / f"{name}.json").read_text())
    written = TrainConfig.model_validate(yaml.safe_load((ROOT / "configs" / "teachers" / f"{name}.yaml").read_text()))
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert (record["algo"], record["env_id"], record["seed"]) == (written.algo, written.env.id, written.seed)
    assert written.timesteps <= record["timesteps"] < 1.05 * written.timesteps
    assert record["return"]["mean"] >= {"cartpole": 500, "lunarlander": 240, "pendulum": -150}[name]
    model, teacher = sb3_load(record["algo"], BUILTIN_FOLDER / f"{name}.zip"), load_teacher(f"builtin:{name}")
    seen = observations(model.observation_space)
    expected = model.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(teacher.predict(seen, deterministic=True)[0], expected, atol=1e-6)


def test_built_in_teachers_are_small():
    assert sum(path.stat().st_size for path in BUILTIN_FOLDER.iterdir() if path.suffix in (".zip", ".json")) < 4 * 2**20


def test_wrappers_that_no_record_may_name_are_refused_before_training(tmp_path):
    env = {"id": "CartPole-v1", "wrappers": [{"RecordVideo": {"video_folder": str(tmp_path / "film")}}]}
    with pytest.raises(InputError, match=r"env\.wrappers: RecordVideo writes files"):
        train_teacher(config(env=env), tmp_path / "teacher")
    assert not (tmp_path / "film").exists() and not list(tmp_path.glob("teacher/*.zip"))
