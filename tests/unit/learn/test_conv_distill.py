"""Fails when a whole run of a student of images does not learn, does not continue bit for bit, or leaves out what a run
is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from policykd import api
from policykd.cli.main import main
from policykd.exports.bundle import Wishes
from policykd.learn.judging.judge import Judging
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.tracker import NullTracker
from policykd.students.conv import ConvStudent
from policykd.students.load import load_student
from tests.support.pictures import Patch, finder
from tests.support.runs import StopsBehind


def small(kind: str = "cnn", **changes: Any) -> Config:
    document: dict[str, Any] = {
        "student": {"kind": kind, "channels": 4, "width": 16},
        "rollout": {"rounds": 2, "timesteps": 2000},
        "update": {"n_updates": 100, "batch_size": 64},
        "evaluate": {"episodes": 10, "select_episodes": 4},
        "device": "cpu",
    }
    return Config.model_validate({**document, **changes})


class Losses(NullTracker):
    """Keeps the loss."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def scalars(self, values: dict[str, float], step: int) -> None:
        self.values += [value for name, value in values.items() if name == "loss/forward_kl"]


def distilled(config: Config, out: Path, *, mixed: bool = False, masked: bool = False, **more: Any) -> api.Run:
    teacher = finder(mixed=mixed, masked=masked)
    return api.distill(config, teacher=teacher, env=lambda: Patch(mixed=mixed, masked=masked), out=out, **more)


def in_numpy(run: api.Run, *, mixed: bool) -> None:
    """The file acts as the student does, with torch and with NumPy."""
    again, plain = load_student(run.folder), load_student(run.folder, backend="numpy")
    assert again.footprint == run.student.footprint
    env = Patch(mixed=mixed)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        actions = [one.predict(observation, deterministic=True)[0] for one in (run.student, again, plain)]
        assert actions[0] == actions[1] == actions[2]


def exported(run: api.Run, target: str, **patch: bool) -> None:
    """Its export passes, with the artifact in the loop."""
    wishes = Wishes(episodes=3, env=lambda: Patch(**patch))
    (written,) = api.export(run.folder, target, run.folder / target, how=wishes)
    assert written["verified"]["passed"] and written["verified"]["episodes"]["equal"] == 3


@pytest.mark.parametrize(("mixed", "conv"), [(False, "impala"), (True, "nature")])
def test_it_learns_where_a_patch_lies(
    mixed: bool, conv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = {"kind": "multi" if mixed else "cnn", "channels": 4, "width": 16, "conv": conv}
    told, update = Losses(), {"n_updates": 80, "batch_size": 64}
    run = distilled(small(student=student, update=update), tmp_path / "run", mixed=mixed, tracker=told)
    assert isinstance(run.student, ConvStudent) and run.student.kind == student["kind"]
    assert run.result["agreement"] > 0.9, "chance is a quarter"
    assert told.values[-1] < 0.3 * told.values[0]
    in_numpy(run, mixed=mixed)
    assert api.evaluate(str(run.folder), how=Judging(episodes=5), env=lambda: Patch(mixed=mixed))["return"]["mean"] > 8
    exported(run, "onnx", mixed=mixed)
    assert main(["export", str(run.folder), "--to", "sb3", "--env", "CartPole-v1"]) == 2
    assert "\n" not in capsys.readouterr().err.strip()


def test_a_masked_teacher_makes_a_student_that_acts_within_masks(tmp_path: Path) -> None:
    """The environment refuses a forbidden action. A family, of two numbers of maps, shares one data set."""
    config = small(student={"kind": "cnn", "channels": [2, 4], "width": 8}, update={"n_updates": 60, "batch_size": 32})
    run = distilled(config, tmp_path / "run", masked=True)
    exported(run, "onnx", masked=True)
    assert run.student.masked and run.result["agreement"] > 0.5
    members = json.loads((run.folder / "frontier.json").read_text())["members"]
    assert [(m["channels"], m["width"], m["depth"]) for m in members] == [(2, 8, 1), (4, 8, 1)]
    chosen = next(m for m in members if m["status"] == "chosen")
    assert all(chosen[name] == run.result["student"][name] for name in ("params", "constants", "macs"))
    assert members[0]["params"] < members[1]["params"] and chosen["constants"] == 6
    curves = {path.name for path in run.folder.iterdir()}
    assert "report.html" in curves


def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path) -> None:
    config = small(rollout={"rounds": 3, "timesteps": 1200}, update={"n_updates": 10, "batch_size": 32})
    whole = api.distill(config, teacher=finder(), env=Patch, out=tmp_path / "whole")
    stop = StopsBehind(tmp_path / "run" / "checkpoints" / "latest.json")
    with pytest.raises(Interrupted, match="--resume"):
        api.distill(config, teacher=finder(), env=Patch, out=tmp_path / "run", stop=stop)
    shard = safetensors.numpy.load_file(tmp_path / "run" / "checkpoints" / "shard-0000.safetensors")
    assert shard["observation"].dtype == np.uint8 and shard["observation"].shape[1] == 16 * 16 * 3
    resumed = api.resume(tmp_path / "run", teacher=finder(), env=Patch)
    first, second = ((folder / "student.safetensors").read_bytes() for folder in (whole.folder, resumed.folder))
    assert first == second


def test_keys_choose_what_it_sees(tmp_path: Path) -> None:
    few: dict[str, Any] = {"rollout": {"rounds": 2, "timesteps": 400}, "update": {"n_updates": 3, "batch_size": 32}}
    student = {"kind": "multi", "channels": 2, "width": 4, "keys": ["image", "mirror"]}
    run = distilled(small(student=student, **few), tmp_path / "a", mixed=True)
    assert isinstance(run.student, ConvStudent) and [e.units for e in run.student.plan.encoders] == [0, 4]
    in_numpy(run, mixed=True)
    only = {"kind": "cnn", "channels": 2, "width": 4, "keys": ["image"]}
    assert distilled(small(student=only, **few), tmp_path / "b", mixed=True).student.kind == "cnn"


@pytest.mark.parametrize(
    ("kind", "mixed", "keys", "expected"),
    [
        ("cnn", True, None, "expected one image: use student.kind=multi"),
        ("cnn", True, ["speed"], "expected one image: use student.kind=mlp"),
        ("multi", False, None, "expected several: use student.kind=cnn"),
    ],
)
def test_a_kind_that_does_not_fit_is_refused(kind: str, mixed: bool, keys: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        distilled(small(student={"kind": kind, "keys": keys}), tmp_path / "run", mixed=mixed)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
