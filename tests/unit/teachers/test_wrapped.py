"""Teachers with an extractor or a class of their own: live, and from a zip after trust."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, TRPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from policykd import api
from policykd.cli.main import main
from policykd.learn.judging.judge import Judging
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.teachers.build import FIXED_STD
from policykd.teachers.load import load_teacher
from policykd.teachers.modelspec import UnsupportedPolicy
from policykd.teachers.wrapped import wrap
from tests.support.extractors import ContraryPolicy, OwnPolicy, Waves
from tests.support.teachers import Spaces, box, members, observations, refused, write_yaml, write_zip

DISCRETE, BOX = spaces.Discrete(3), box(2, low=-2.0, high=0.5)
OFF = {"learning_starts": 20, "buffer_size": 200, "batch_size": 16}
ON = {"n_steps": 20}
MODELS: dict[str, tuple[Any, spaces.Space[Any], dict[str, Any]]] = {
    "ppo": (PPO, DISCRETE, ON | {"batch_size": 20}),
    "ppo-box": (PPO, BOX, ON | {"batch_size": 20}),
    "ppo-gsde": (PPO, BOX, ON | {"batch_size": 20, "use_sde": True}),
    "ppo-multi": (PPO, spaces.MultiDiscrete([2, 3]), ON | {"batch_size": 20}),
    "ppo-bits": (PPO, spaces.MultiBinary(3), ON | {"batch_size": 20}),
    "a2c": (A2C, DISCRETE, ON),
    "trpo": (TRPO, BOX, ON | {"batch_size": 20}),
    "sac": (SAC, BOX, OFF),
    "sac-gsde": (SAC, BOX, OFF | {"use_sde": True}),
    "tqc": (TQC, BOX, OFF),
    "td3": (TD3, BOX, OFF),
    "ddpg": (DDPG, BOX, OFF),
    "dqn": (DQN, DISCRETE, OFF),
    "qrdqn": (QRDQN, DISCRETE, OFF),
}


def trained(name: str, **policy_kwargs: Any) -> Any:
    """A model of the kind that has learned a few steps."""
    kind, actions, settings = MODELS[name]
    kwargs = {"net_arch": [8], "features_extractor_class": Waves, **policy_kwargs}
    model = kind("MlpPolicy", Spaces(box(4), actions), device="cpu", seed=0, policy_kwargs=kwargs, **settings)
    return model.learn(40)


def own_params(name: str, policy: Any, batch: torch.Tensor) -> torch.Tensor:
    """The parameters by stable-baselines3's own methods."""
    with torch.no_grad():
        if name in ("td3", "ddpg"):
            mean = policy.actor(batch)
            return torch.cat([mean, torch.full_like(mean, np.log(FIXED_STD))], -1)
        if name == "dqn":
            return policy.q_net(batch)
        if name == "qrdqn":
            return policy.quantile_net(batch).mean(1)
        if name in ("sac", "tqc", "sac-gsde"):
            policy.actor(batch, deterministic=True)  # leaves its distribution behind
            normal = policy.actor.action_dist.distribution
            return torch.cat([normal.mean, normal.stddev.log()], -1)
        inner = policy.get_distribution(batch).distribution
        if isinstance(inner, list):
            return torch.cat([each.logits for each in inner], -1)
        return inner.logits if hasattr(inner, "logits") else torch.cat([inner.mean, inner.stddev.log()], -1)


@pytest.mark.parametrize("name", MODELS)
def test_live_and_trusted_parameters_and_actions_are_those_of_stable_baselines3(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(name)
    batch = observations(model.observation_space, 256)
    expected = own_params(name, model.policy, torch.from_numpy(batch))
    actions, _ = model.predict(batch, deterministic=True)
    model.save(tmp_path / "m.zip")
    refused(tmp_path / "m.zip", "Waves", "live model in Python, or --trust")
    assert capsys.readouterr().err == ""
    live, opened = load_teacher(model), load_teacher(tmp_path / "m.zip", trust=True)
    sha256 = hashlib.sha256((tmp_path / "m.zip").read_bytes()).hexdigest()
    line = "is opened by stable-baselines3's own loader, which runs what it holds"
    assert capsys.readouterr().err == f"trusted: {tmp_path / 'm.zip'} sha256 {sha256} {line}\n"
    assert (opened.info.sha256, opened.info.algo) == (sha256, name.partition("-")[0])
    for teacher in (live, opened):
        torch.testing.assert_close(teacher.distribution_params(torch.from_numpy(batch)), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(teacher.predict(batch, deterministic=True)[0], actions, atol=1e-6)
        assert any("Waves" in note for note in teacher.info.notes)
    assert opened.fingerprint == live.fingerprint


def test_later_training_changes_nothing() -> None:
    model = trained("ppo-gsde")
    batch = torch.from_numpy(observations(model.observation_space, 8))
    teacher = load_teacher(model)
    before, fingerprint = teacher.distribution_params(batch), teacher.fingerprint
    model.learn(60)
    assert torch.equal(teacher.distribution_params(batch), before)
    assert teacher.fingerprint == teacher.to("cpu").fingerprint == fingerprint != load_teacher(model).fingerprint


@pytest.mark.parametrize("name", MODELS)
def test_a_plain_policy_costs_the_same_wrapped_as_read(name: str) -> None:
    from stable_baselines3.common.torch_layers import FlattenExtractor

    model = trained(name, features_extractor_class=FlattenExtractor)
    read, wrapped = load_teacher(model), wrap(model.policy, "live")
    assert wrapped.footprint(0) == read.info.footprint
    assert wrapped.sizes == read.info.layers
    assert (wrapped.kind, wrapped.distribution) == (read.network.kind, read.distribution)


def test_the_extractor_is_counted() -> None:
    size = load_teacher(trained("ppo")).info.footprint
    assert size.params == (4 * 6 + 6) + 2 * 6 + (6 * 8 + 8) + (8 * 3 + 3)  # dense, norm, hidden, actions; no critic
    assert size.macs == 4 * 6 + 6 * 8 + 8 * 3


def test_a_policy_class_of_its_own_and_normalised_observations(tmp_path: Path) -> None:
    venv = VecNormalize(DummyVecEnv([lambda: Spaces(box(4), DISCRETE)]))
    model = PPO(OwnPolicy, venv, device="cpu", n_steps=20, batch_size=20).learn(40)
    teacher, raw = load_teacher(model), observations(box(4), 16)
    expected = own_params("ppo", model.policy, torch.from_numpy(venv.normalize_obs(raw)).float())
    torch.testing.assert_close(teacher.distribution_params(torch.from_numpy(raw)), expected, rtol=0, atol=1e-5)
    model.save(tmp_path / "m.zip")
    venv.save(str(tmp_path / "v.pkl"))
    refused(tmp_path / "m.zip", "OwnPolicy", "--trust")
    opened = load_teacher(tmp_path / "m.zip", trust=True, vec_normalize=tmp_path / "v.pkl")
    assert opened.fingerprint == teacher.fingerprint


def test_trust_changes_nothing_for_a_file_that_is_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    PPO("MlpPolicy", Spaces(box(4), DISCRETE), device="cpu").save(tmp_path / "m.zip")
    monkeypatch.setattr(PPO, "load", None)
    assert load_teacher(tmp_path / "m.zip", trust=True).info.algo == "ppo"
    assert capsys.readouterr().err == ""


def test_what_cannot_be_wrapped_is_one_line(tmp_path: Path) -> None:
    small = Spaces(box(4), spaces.Discrete(2))
    refused(PPO(ContraryPolicy, small, device="cpu"), "ContraryPolicy", "mode of its distribution")
    broken = trained("ppo")
    broken.save(tmp_path / "m.zip")
    write_zip(tmp_path / "m.zip", members(tmp_path / "m.zip") | {"policy.pth": b"no weights"})
    refused(tmp_path / "m.zip", "own loader cannot open it", trust=True)
    (tmp_path / "m.zip").write_bytes(b"no zip")
    refused(tmp_path / "m.zip", "not a readable zip", trust=True)


def test_a_file_that_is_not_the_one_of_its_record_is_not_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("ppo").save(tmp_path / "teacher.zip")
    (tmp_path / "teacher.json").write_text('{"algo": "ppo", "sha256": "' + "0" * 64 + '"}')
    refused(tmp_path, "sha256 differs", trust=True)
    assert capsys.readouterr().err == ""


def test_trust_reaches_the_loader_from_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kwargs = {"net_arch": [8], "features_extractor_class": Waves}
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=0, policy_kwargs=kwargs, n_steps=256)
    model.learn(6000)
    zoo = tmp_path / "ppo" / "CartPole-v1_1"
    (zoo / "CartPole-v1").mkdir(parents=True)
    model.save(zoo / "CartPole-v1.zip")
    write_yaml(zoo / "CartPole-v1" / "args.yml", env="CartPole-v1")
    for words in (["evaluate", zoo, "--episodes", 2], ["inspect", zoo], ["inspect", zoo, "--episodes", 2]):
        assert main([str(word) for word in words]) == 2
        assert "--trust" in capsys.readouterr().err
        assert main([*map(str, words), "--trust"]) == 0
        assert "trusted: " in capsys.readouterr().err
    film = ["play", str(zoo), "--video", str(tmp_path / "a.gif")]
    assert main(film) == 2
    assert "--trust" in capsys.readouterr().err
    assert main([*film, "--trust"]) == 0
    assert (tmp_path / "a.gif").is_file()
    capsys.readouterr()
    small = {"rollout": {"rounds": 2, "timesteps": 2000}, "update": {"n_updates": 20}, "device": "cpu",
             "evaluate": {"episodes": 5, "select_episodes": 5}}  # fmt: skip
    config = Config.model_validate({**small, "teacher": str(zoo)})
    with pytest.raises(UnsupportedPolicy):
        api.distill(config, out=tmp_path / "run")
    run = api.distill(config.model_copy(update={"trust": True}), out=tmp_path / "run")
    assert run.result["teacher"]["params"] == load_teacher(model).info.footprint.params
    words = ("distill", "--teacher", zoo, "--trust", "--print-config")
    assert main([str(word) for word in words]) == 0
    assert "trust: true\n" in capsys.readouterr().out
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (resumed / "config.yaml").write_bytes((run.folder / "config.yaml").read_bytes())
    capsys.readouterr()
    assert main(["distill", "--resume", str(resumed)]) == 2
    refusal = capsys.readouterr().err
    assert "add --trust" in refusal and "trusted: " not in refusal and refusal.count("\n") == 1
    assert main(["distill", "--resume", str(resumed), "--trust"]) == 0
    assert "trusted: " in capsys.readouterr().err
    how = Judging(2, trust=True)
    assert api.evaluate(run.folder, teacher=str(zoo), how=how)["teacher"]["source"] == str(zoo)


def test_a_policy_that_acts_in_no_known_way() -> None:
    class Odd(BasePolicy):
        """Neither an actor-critic policy nor an actor."""

        def _predict(self, observation: Any, deterministic: bool = False) -> Any:
            return torch.zeros(len(observation), dtype=torch.int64)

    model = PPO("MlpPolicy", Spaces(box(4), DISCRETE), device="cpu")
    model.policy = Odd(model.observation_space, model.action_space)
    refused(model, "Odd", "expected an actor-critic policy")


class _Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("hacked"),)


def test_a_configuration_alone_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    PPO("MlpPolicy", Spaces(box(4), spaces.Discrete(2)), device="cpu").save(tmp_path / "m.zip")
    content = members(tmp_path / "m.zip")
    data = json.loads(content["data"])
    data["policy_class"] = {":type:": "x", ":serialized:": base64.b64encode(cloudpickle.dumps(_Payload())).decode()}
    write_zip(tmp_path / "m.zip", content | {"data": json.dumps(data).encode()})
    (tmp_path / "c.yaml").write_text("teacher: m.zip\nenv: {id: CartPole-v1}\ntrust: true\n")
    with pytest.raises(InputError, match=r"c\.yaml: trust: true .*add --trust"):
        load_config("c.yaml")
    assert main(["distill", "--config", "c.yaml", "--out", "run"]) == 2
    assert "add --trust" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "c.yaml").rename(tmp_path / "run" / "config.yaml")
    for again in (lambda: main(["distill", "--resume", "run"]), lambda: api.resume("run")):
        with contextlib.suppress(InputError):
            assert again() == 2
    assert not (tmp_path / "hacked").exists()
    main(["distill", "--config", "run/config.yaml", "--out", "other", "--trust"])  # the control: it would have run
    assert (tmp_path / "hacked").exists()
