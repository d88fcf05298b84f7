"""Fails when a whole run of a student with a memory does not learn, does not continue bit for bit, or leaves out what a
run is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from policykd import api
from policykd.cli.main import main
from policykd.learn.judging.judge import Judging
from policykd.learn.methods.distill import _sequences, _tables
from policykd.rollout.collect import Rollout
from policykd.spine.config.schema import Config
from policykd.spine.packing import packing_of
from policykd.students.gru import GruStudent
from policykd.students.load import load_student
from policykd.students.view import View
from tests.unit.learn.test_distill import scripted, stopped, tiny

SIZES: dict[str, Any] = {"student": {"kind": "gru", "width": 6}, "update": {"n_updates": 200, "batch_size": 256}}


def recurrent(seed: int, **changes: Any) -> Config:
    return tiny(seed, **{**SIZES, **changes})


def test_it_learns_a_teacher_and_remembers_in_every_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = api.distill(recurrent(1), teacher=scripted(), out=tmp_path / "run")
    assert isinstance(run.student, GruStudent) and run.result["retention"]["value"] > 0.9
    assert 0.9 < run.result["agreement"] <= 1
    document = json.loads((run.folder / "analysis.json").read_text())
    assert document["differ"] is None, "a state alone says nothing of a policy with a memory"
    assert load_student(run.folder).footprint == run.student.footprint
    judged = api.evaluate(str(run.folder), how=Judging(episodes=5))
    assert judged["return"]["mean"] > 400
    assert main(["export", str(run.folder), "--to", "onnx", "--episodes", "2"]) == 0
    assert main(["export", str(run.folder), "--to", "sb3"]) == 2
    assert "has a memory (student.kind=gru)" in capsys.readouterr().err


def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path) -> None:
    config = recurrent(3, rollout={"rounds": 4, "timesteps": 4000}, update={"n_updates": 10})
    whole = api.distill(config, teacher=scripted(), out=tmp_path / "whole")
    stopped(tmp_path / "run", config)
    resumed = api.resume(tmp_path / "run", teacher=scripted())
    first, second = ((folder / "student.safetensors").read_bytes() for folder in (whole.folder, resumed.folder))
    assert first == second


def test_a_family_of_memories_is_trained_at_once(tmp_path: Path) -> None:
    student = {"kind": "gru", "width": [2, 5]}
    config = recurrent(0, student=student, rollout={"rounds": 4, "timesteps": 8000}, update={"n_updates": 10})
    run = api.distill(config, teacher=scripted(), out=tmp_path / "run")
    members = json.loads((run.folder / "frontier.json").read_text())["members"]
    assert [m["width"] for m in members] == [2, 5] and [m["depth"] for m in members] == [1, 1]
    assert members[0]["params"] == 3 * 2 * (4 + 2) + 4 * 2 + 2 * 2 + 2


def test_rows_follow_each_environment_and_say_where_episodes_begin() -> None:
    """Three steps of two environments: the second one's first step belongs to no decision, and an episode ends."""
    steps = np.arange(6, dtype=np.float32).reshape(3, 2, 1)  # row t, n is 2 t + n
    acting = np.array([[1, 1], [1, 0], [1, 1]], bool)
    start = np.array([[1, 1], [0, 0], [1, 1]], bool)
    actor = np.array([[0, 1]] * 3, np.int32)
    none = np.zeros(0, np.int64)
    rollout = Rollout(steps, None, acting, start & acting, actor, none.astype(float), none, none)
    space = spaces.Box(-9, 9, (1,), np.float32)
    view = View.of(None, space, packing_of(space))
    rows = _sequences(rollout, steps, view.features)
    assert rows["observation"].ravel().tolist() == [0, 2, 4, 1, 5]
    assert rows["params"].ravel().tolist() == [0, 2, 4, 1, 5]
    assert rows["actor"].tolist() == [0, 0, 0, 1, 1]
    assert rows["start"].tolist() == [True, False, True, True, True]
    assert _tables(rollout, steps, view.features)["observation"].ravel().tolist() == [0, 1, 2, 4, 5]
