"""Fails when one student does not learn two tasks, when its slices are not students of their own, or when a stop
between the checkpoints of two tasks changes what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from policykd import api, studies
from policykd.learn.judging.judge import Judging
from policykd.report import several
from policykd.report.facts import read_facts
from policykd.report.table import percent
from policykd.spine.config.load import load_config
from policykd.spine.errors import ConfigError, InputError, Interrupted
from tests.support.run_folders import rows_of
from tests.support.runs import StopsBehind

SCHEMA = json.loads((Path(__file__).parents[2] / "schema" / "result.schema.json").read_text())
SHORT = (
    *("tasks=[{teacher: 'builtin:pendulum'}]", "student.width=16", "rollout.rounds=3", "rollout.timesteps=6000"),
    *("update.n_updates=150", "evaluate.episodes=10", "evaluate.select_episodes=5", "device=cpu"),
)
OTHER = "tasks/2-*-Pendulum-v1"


def test_one_student_learns_two_tasks_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    config = load_config("methods/multitask", SHORT)
    whole = api.distill(config, out=tmp_path / "whole")
    (other,) = whole.folder.glob(OTHER)
    out = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        api.distill(config, out=out, stop=StopsBehind(out / "checkpoints" / "state-0002.safetensors"))
    # the first task is saved after round 2, and what they share is not
    assert not (out / "tasks/shared/checkpoints/state-0002.safetensors").exists()
    resumed = api.resume(out)
    files = ["student.safetensors", f"student-{other.name}.safetensors"]
    for name in files:
        assert (out / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert resumed.result["tasks"] == whole.result["tasks"]
    jsonschema.validate(whole.result, SCHEMA)
    rows = rows_of(str(several.tasks(read_facts(whole.folder))))
    held = [percent(one["retention"]["value"]) for one in whole.result["tasks"]["each"]]
    assert [(row[0], row[4]) for row in rows] == [("CartPole-v1", held[0]), ("Pendulum-v1", held[1])]
    document = whole.result["tasks"]
    assert [one["env"] for one in document["each"]] == ["CartPole-v1", "Pendulum-v1"]
    assert document["retention"]["worst"] > 0.8
    assert [one["student"]["file"] for one in document["each"]] == files
    assert whole.result["retention"] == document["each"][0]["retention"]
    slices = [one["student"]["params"] for one in document["each"]]
    assert max(slices) < document["params"] < sum(slices)
    judged = api.evaluate(whole.folder / files[1], teacher="builtin:pendulum", how=Judging(10))
    assert judged["return"]["mean"] == pytest.approx(document["each"][1]["student"]["return"]["mean"])


def test_what_was_asked_allows_no_more_than_the_run_itself(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.distill(
            load_config("methods/multitask", SHORT), out=out, stop=StopsBehind(out / "checkpoints/baseline.json")
        )
    asked = out / "asked.yaml"
    asked.write_text(asked.read_text().replace("trust: false", "trust: true"))
    with pytest.raises(InputError, match=r"asked\.yaml: trust: true lets the teacher's file run code"):
        api.resume(out)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["gate.keep=0.9"], "asks for one claim"),
        (["progressive.generations=2"], "progressive has no use for more than one task"),
        (["student.kind=gru"], "student.kind"),
        (["robust.delay=1", "robust.collect=true"], "robust has no effect"),
    ],
)
def test_what_several_tasks_have_no_use_for(overrides: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config("methods/multitask", overrides)
    assert "\n" not in str(caught.value)


def test_other_commands_refuse_several_tasks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tasks: policykd shrink has no use for"):
        api.shrink(load_config("methods/multitask"), out=tmp_path / "run")
    with pytest.raises(InputError, match="progressive: policykd shrink has no use for it"):
        api.shrink(load_config("methods/self_distillation"), out=tmp_path / "run")


def test_finetune_refuses_chains_and_tasks_instead_of_ignoring_them(tmp_path: Path) -> None:
    own = ["finetune.start=random", "student.width=4"]
    for key, words in (
        ("tasks", ['tasks=[{teacher: "builtin:lunarlander"}]']),
        ("progressive", ["progressive.generations=2"]),
    ):
        with pytest.raises(InputError, match=f"{key}.* no use "):
            studies.finetune(None, load_config(None, [*own, *words]), out=tmp_path / "no")
