"""Fails when a chain of distillations does not teach its last student, judges it by another than the first teacher, or
does not go on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from policykd import api
from policykd.report import several
from policykd.report.facts import read_facts
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError, Interrupted
from policykd.students.load import load_student
from policykd.teachers.load import load_teacher
from tests.support.balancing import balancing
from tests.support.run_folders import rows_of
from tests.support.runs import StopsBehind

SCHEMA = json.loads((Path(__file__).parents[2] / "schema" / "result.schema.json").read_text())
SHORT = (
    *("progressive.steps=[16]", "progressive.generations=2", "student.width=6", "rollout.rounds=3"),
    *("rollout.timesteps=3000", "update.n_updates=60", "evaluate.episodes=10", "evaluate.select_episodes=5"),
    "device=cpu",
)


def test_a_chain_learns_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    config = load_config("methods/self_distillation", SHORT)
    whole = api.distill(config, out=tmp_path / "whole")
    out, stop = tmp_path / "stopped", "steps/2/checkpoints/shard-0001.safetensors"
    with pytest.raises(Interrupted):
        api.distill(config, out=out, stop=StopsBehind(out / stop))
    resumed = api.resume(out)
    files = ["student.safetensors", *(f"steps/{n}/student.safetensors" for n in (1, 2, 3))]
    for name in files:
        assert (out / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert resumed.result["progressive"] == whole.result["progressive"]
    jsonschema.validate(whole.result, SCHEMA)
    assert whole.result["retention"]["value"] > 0.9
    assert whole.result["teacher"]["params"] == load_teacher("builtin:cartpole").info.footprint.params
    document = whole.result["progressive"]
    assert [step["width"] for step in document["steps"]] == [16, 6, 6]
    assert whole.result["timesteps"] == sum(step["timesteps"] for step in document["steps"])
    rows = rows_of(str(several.steps(read_facts(whole.folder))))
    assert [row[1] for row in rows] == ["16", "6", "6"] and "chosen" in rows[document["chosen"] - 1][0]
    finals = {2: document["steps"][1]["return"], 3: document["steps"][2]["return"]}
    assert finals[document["chosen"]] == max(finals.values())
    chosen = load_student(whole.folder / document["steps"][document["chosen"] - 1]["file"])
    assert {n: w.tolist() for n, w in chosen.weights().items()} == {
        n: w.tolist() for n, w in whole.student.weights().items()
    }
    generations = [load_student(whole.folder / f"steps/{n}").weights() for n in (2, 3)]
    assert any(generations[0][name].ne(generations[1][name]).any() for name in generations[0])


def test_sizes_are_chosen_from_the_teacher(tmp_path: Path) -> None:
    config = load_config("methods/progressive", ["progressive.factor=40", *SHORT[2:]], {"teacher": "builtin:cartpole"})
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.distill(config, out=out, stop=StopsBehind(out / "checkpoints/baseline.json"))
    (width,) = load_config(str(out / "config.yaml")).progressive.steps
    teacher = load_teacher("builtin:cartpole").info.footprint.params
    last = width_params(6)
    assert width_params(width) == pytest.approx((teacher * last) ** 0.5, rel=0.1)


def width_params(width: int) -> int:
    return (4 + 1) * width + (width + 1) * width + (width + 1) * 2


def test_a_teacher_of_unknown_size_has_no_automatic_steps(tmp_path: Path) -> None:
    config = load_config("methods/progressive", SHORT[2:])
    with pytest.raises(InputError, match="name the widths, such as"):
        api.distill(config, teacher=balancing(), out=tmp_path / "run")
