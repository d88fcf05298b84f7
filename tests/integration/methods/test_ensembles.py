"""Fails when an ensemble of teachers does not teach, or what was measured of its teachers does not outlive a stop."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import policykd
from policykd import api
from policykd.learn.run import open_task
from policykd.learn.setup.weighing import by_return
from policykd.report import several
from policykd.report.facts import read_facts
from policykd.report.table import percent
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError, Interrupted
from policykd.teachers.ensemble import ensemble_of
from policykd.teachers.load import load_teacher
from tests.support.balancing import balancing
from tests.support.run_folders import rows_of
from tests.support.runs import Notes, StopsBehind

SCHEMA = json.loads((Path(__file__).parents[2] / "schema" / "result.schema.json").read_text())
SHORT = (
    *("rollout.rounds=3", "rollout.timesteps=3000", "update.n_updates=60", "student.width=8", "device=cpu"),
    *("evaluate.episodes=10", "evaluate.select_episodes=5"),
)


def settings(*overrides: str) -> Config:
    return load_config("methods/ensemble", ["ensemble.teachers=[]", *SHORT, *overrides])


def test_a_student_learns_from_two_kinds_of_teachers_and_resumes(tmp_path: Path) -> None:
    teachers, notes = ["builtin:cartpole", balancing()], Notes()
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.distill(
            settings(), teacher=teachers, out=out, tracker=notes, stop=StopsBehind(out / "checkpoints/baseline.json")
        )
    assert any("weights by return: builtin:cartpole 0." in line for line in notes.lines)
    run = api.resume(out, teacher=teachers)
    assert run.result["retention"]["value"] > 0.9
    document = run.result["teacher"]["ensemble"]
    assert document["how"] == "product"
    assert sum(one["weight"] for one in document["teachers"]) == pytest.approx(1)
    assert [one["algo"] for one in document["teachers"]] == run.result["teacher"]["algo"].split("+")
    jsonschema.validate(run.result, SCHEMA)
    rows = rows_of(str(several.teachers(read_facts(run.folder))))
    assert [row[-1] for row in rows] == [percent(one["weight"]) for one in document["teachers"]]
    kept = load_config(str(out / "config.yaml"))
    one, other = kept.ensemble.q_temperatures
    assert one == 1.0
    assert other > 1.0, "the values of the second are larger than logits should be"
    twin = api.distill(settings(), teacher=teachers, out=tmp_path / "twin")
    assert [(run.folder / "student.safetensors").read_bytes()] == [(twin.folder / "student.safetensors").read_bytes()]


def test_data_that_an_ensemble_labelled_teaches_and_that_of_another_does_not(tmp_path: Path) -> None:
    teachers, data = ["builtin:cartpole", balancing()], tmp_path / "data"
    policykd.collect(settings("rollout.timesteps=1000", "evaluate.select_episodes=3"), teacher=teachers, out=data)
    numbers = load_config(str(data / "config.yaml")).ensemble
    few = [f"data={data}", "evaluate.select_episodes=2", "evaluate.episodes=3"]  # not those that measured

    out, notes = tmp_path / "run", Notes()
    stop = StopsBehind(out / "checkpoints/baseline.json")
    with pytest.raises(Interrupted):
        api.distill(settings(*few), teacher=teachers, out=out, tracker=notes, stop=stop)
    assert any("by which the data was labelled" in line for line in notes.lines)
    run = api.resume(out, teacher=teachers)
    assert run.result["retention"]["value"] > 0.5
    kept = load_config(str(out / "config.yaml")).ensemble
    assert (kept.weights, kept.q_temperatures) == (numbers.weights, numbers.q_temperatures)
    named = [f"ensemble.weights={numbers.weights}", f"ensemble.q_temperatures={numbers.q_temperatures}"]
    open_task(settings(*few, *named), teachers, None)
    for word in ("ensemble.how=mixture", "ensemble.weights=[3, 1]", "ensemble.q_temperatures=[1.0, 9.0]"):
        with pytest.raises(InputError, match=r"was labelled by these teachers as .*: give the data's ensemble\.how"):
            open_task(settings(*few, word), teachers, None)
    for others in (["builtin:cartpole"], [balancing(), "builtin:cartpole"], ["builtin:cartpole", balancing(0.5)]):
        with pytest.raises(InputError, match="was labelled by another teacher"):
            open_task(settings(*few), others, None)


def test_a_teacher_below_chance_has_no_say() -> None:
    assert by_return(torch.tensor([110.0, 5.0, 60.0]).numpy(), 10.0) == pytest.approx([2 / 3, 0.0, 1 / 3])
    with pytest.raises(InputError, match="expected one above chance"):
        by_return(torch.tensor([9.0, 5.0]).numpy(), 10.0)


def test_what_cannot_be_meant_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="for 1 teachers"):
        api.distill(settings("ensemble.weights=[1, 2]"), out=tmp_path / "a")
    both = ensemble_of([load_teacher("builtin:cartpole"), balancing()], "mixture", [1, 1])
    with pytest.raises(InputError, match="give its teachers as a list"):
        api.distill(settings(), teacher=both, out=tmp_path / "b")
    with pytest.raises(InputError, match="one for each of 2 teachers"):
        load_config(None, ["ensemble.teachers=[a.zip]", "ensemble.weights=[1]"])


def test_several_options_are_the_first_teacher_and_the_others(tmp_path: Path) -> None:
    config = load_config(None, [], {"teacher": ["a.zip", "b.zip", "c.zip"]})
    assert (config.teacher, config.ensemble.teachers) == ("a.zip", ["b.zip", "c.zip"])
    alone = load_config("methods/ensemble", [], {"teacher": ["a.zip"]})
    assert (alone.teacher, alone.ensemble.teachers) == ("a.zip", ["runs/teachers/cartpole_dqn"])
