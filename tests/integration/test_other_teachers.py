"""ONNX files, modules and functions through whole runs: distill, inspect, evaluate, resume."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest
import torch
from gymnasium import make, spaces
from torch import nn

from policykd import InputError, distill, load_config, load_teacher, make_custom_teacher, resume
from policykd.spine.errors import Interrupted
from policykd.spine.stop import NeverStop
from policykd.teachers.networks import Network
from tests.house.rules import ROOT
from tests.support.onnx_files import card_of, onnx_of, write

SCHEMA = json.loads((ROOT / "tests" / "schema" / "result.schema.json").read_text())
SMALL = [
    *("rollout.rounds=3", "rollout.timesteps=6000", "update.n_updates=150", "student.width=8"),
    *("evaluate.episodes=6", "evaluate.select_episodes=3"),
]


def _run(*words, cwd):
    command = [sys.executable, "-m", "policykd", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["cartpole", pytest.param("pendulum", marks=pytest.mark.slow)])
def test_an_onnx_file_on_the_command_line(tmp_path, name):
    teacher = load_teacher(f"builtin:{name}")
    model = onnx_of(teacher)
    path = write(tmp_path / "policy.onnx", model, card_of(teacher, model))
    done = _run("distill", "--teacher", path.name, "--out", "run", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    jsonschema.validate(result, SCHEMA)
    assert result["teacher"]["algo"] == "onnx"
    assert result["teacher"]["params"] == teacher.info.footprint.params
    assert result["retention"]["value"] > 0.3
    shown = _run("inspect", path.name, "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["macs"] == teacher.info.footprint.macs
    judged = _run("evaluate", path.name, "--episodes", 3, "--json", cwd=tmp_path)
    assert judged.returncode == 0, judged.stderr
    reference = _run("evaluate", f"builtin:{name}", "--episodes", 3, "--json", cwd=tmp_path)
    ours, theirs = (json.loads(text.stdout)["return"]["mean"] for text in (judged, reference))
    assert ours == pytest.approx(theirs, rel=1e-3)
    judged = _run("evaluate", "run", "--teacher", path.name, "--episodes", 3, cwd=tmp_path)
    assert judged.returncode == 0, judged.stderr


def test_an_onnx_file_without_its_yaml_on_the_command_line(tmp_path):
    path = write(tmp_path / "policy.onnx", onnx_of(load_teacher("builtin:cartpole")), None)
    for command in (["distill", "--teacher", path], ["inspect", path], ["evaluate", path]):
        done = _run(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert "policy.yaml" in done.stderr
        assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["policy.onnx"]


class _Stop(NeverStop):
    """Asks for a stop after a while."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted("stopped")


def _module() -> nn.Module:
    """The built-in CartPole teacher's actor as a module of torch."""
    network = load_teacher("builtin:cartpole").network
    assert isinstance(network, Network)
    parts: list[nn.Module] = []
    for layer in network.layers:
        linear = nn.Linear(*layer.sizes)
        linear.weight.data, linear.bias.data = layer.weight.clone(), layer.bias.clone()
        parts += [linear, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def _balance(x: torch.Tensor) -> torch.Tensor:
    lean = 10 * (x[:, 2] + 0.5 * x[:, 3] + 0.05 * x[:, 0] + 0.1 * x[:, 1])
    return torch.stack([-lean, lean], -1)


def _teacher(forward):
    space = make("CartPole-v1").observation_space
    return make_custom_teacher(forward, space, spaces.Discrete(2), env_id="CartPole-v1")


def test_a_module(tmp_path):
    run = distill(load_config(None, SMALL), teacher=_teacher(_module()), out=tmp_path / "run")
    jsonschema.validate(run.result, SCHEMA)
    builtin = load_teacher("builtin:cartpole").info.footprint
    assert (run.result["teacher"]["params"], run.result["teacher"]["macs"]) == (builtin.params, builtin.macs)
    assert run.result["compression"] > 1
    assert run.result["retention"]["value"] > 0.5
    assert "x fewer" in str(run)


def test_a_function_claims_no_compression_and_is_resumed(tmp_path):
    config = load_config(None, SMALL)
    whole = distill(config, teacher=_teacher(_balance), out=tmp_path / "whole")
    jsonschema.validate(whole.result, SCHEMA)
    assert whole.result["teacher"]["params"] is whole.result["teacher"]["macs"] is whole.result["compression"] is None
    assert "fewer" not in str(whole)
    assert whole.result["notes"] == []
    assert whole.result["retention"]["value"] > 0.5
    with pytest.raises(Interrupted):
        distill(config, teacher=_teacher(_balance), out=tmp_path / "cut", stop=_Stop(2500))
    with pytest.raises(InputError, match="give it again"):
        resume(tmp_path / "cut")
    with pytest.raises(InputError, match="not those"):
        resume(tmp_path / "cut", teacher=_teacher(lambda x: -_balance(x)))
    again = resume(tmp_path / "cut", teacher=_teacher(_balance))
    assert (again.folder / "student.safetensors").read_bytes() == (whole.folder / "student.safetensors").read_bytes()
