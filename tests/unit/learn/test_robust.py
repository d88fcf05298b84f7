"""Fails when a whole run with disturbances is not what its configuration says, when one without them is touched, or
when the figures under each are not of the same seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from pydantic import ValidationError

from policykd import api
from policykd.cli.main import main
from policykd.learn.setup.disturbing import disturbed
from policykd.report.table import result_table
from policykd.rollout.envs import EnvSpec
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.robust import RobustConfig
from policykd.spine.errors import InputError, Interrupted
from tests.house.rules import ROOT
from tests.support.runs import StopsBehind
from tests.unit.learn.test_distill import scripted, stopped, tiny

SMALL: dict[str, Any] = {
    "rollout": {"rounds": 2, "timesteps": 1500},
    "update": {"n_updates": 20},
    "evaluate": {"episodes": 2, "select_episodes": 2},
    "env": {"backend": "sync"},
}
ALL = {"noise": 2.0, "delay": 3, "drop": 0.3, "parameters": {"gravity": [0.5, 1.5]}}
SMOOTH = {"return", "action_change"}


def weights(run: api.Run) -> bytes:
    return b"".join(part.numpy().tobytes() for part in run.student.weights().values())


def shard(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "checkpoints" / "baseline.json").read_text())


def test_judging_changes_no_student_and_collecting_does(tmp_path: Path) -> None:
    plain = api.distill(tiny(1, **SMALL), teacher=scripted(), out=tmp_path / "plain")
    assert "robust" not in plain.result and "noise_units" not in shard(plain.folder)
    robust = {**ALL, "evaluate": True}
    judged = api.distill(tiny(1, **SMALL, robust=robust), teacher=scripted(), out=tmp_path / "judged")
    robust = {"noise": 0.2, "collect": True}
    noisy = api.distill(tiny(1, **SMALL, robust=robust), teacher=scripted(), out=tmp_path / "noisy")
    assert weights(plain) != weights(noisy) and "robust" not in noisy.result
    assert weights(plain) == weights(judged)
    kinds = ["clean", "noise", "delay", "drop", "parameters", "together"]
    robust = judged.result["robust"]
    assert list(robust["conditions"]) == kinds and robust["episodes"] == 2 and robust["seeds"] == [10_000, 10_001]
    jsonschema.validate(judged.result, json.loads((ROOT / "tests/schema/result.schema.json").read_text()))
    clean = robust["conditions"]["clean"]
    for who in ("teacher", "student"):
        assert {name: judged.result[who][name] for name in SMOOTH} == {name: clean[who][name] for name in SMOOTH}
    for kind in ("noise", "drop"):  # who does not look is not disturbed
        assert robust["conditions"][kind]["random"] == clean["random"]
        assert robust["conditions"][kind]["settings"] == {kind: ALL[kind]}
    together = robust["conditions"]["together"]
    assert together["settings"] == ALL and together["teacher"]["return"]["mean"] < 500
    table = result_table(judged.result)
    assert all(f"\n  {kind} " in table for kind in kinds) and "action change a step" in table


def test_a_stopped_run_under_disturbances_continues_bit_for_bit(tmp_path: Path) -> None:
    student = {"kind": "gru", "width": 4}
    robust = {**ALL, "collect": True, "evaluate": True, "episodes": 2}
    config = tiny(3, **{**SMALL, "env": {}}, student=student, robust=robust)
    whole = api.distill(config, teacher=scripted(), out=tmp_path / "whole")
    stopped(tmp_path / "run", config)
    resumed = api.resume(tmp_path / "run", teacher=scripted())
    assert weights(whole) == weights(resumed)
    assert whole.result["robust"] == resumed.result["robust"]
    assert whole.result["robust"]["episodes"] == 2
    assert whole.result["backend"] == "sync"  # the vector class, which `auto` takes else, cannot vary parameters


def test_the_student_learns_from_what_it_sees_with_labels_of_what_is(tmp_path: Path) -> None:
    """The data set's rows: the labels are not the teacher's answers to the observations beside them."""
    config = tiny(0, **{**SMALL, "rollout": {"rounds": 3, "timesteps": 3000}}, robust={"noise": 1, "collect": True})
    stop = StopsBehind(tmp_path / "run" / "checkpoints" / "state-0001.safetensors")
    with pytest.raises(Interrupted):
        api.distill(config, teacher=scripted(), out=tmp_path / "run", stop=stop)
    for index in range(2):  # the teacher's round, and the student's
        found = RunFolder(tmp_path / "run", resume=True).load_shard(index)
        assert found is not None and (found["actor"] >= 0).all() == (index == 1)
        answers = scripted().distribution_params(torch.from_numpy(found["observation"])).numpy()
        assert 0.05 < (found["params"].argmax(-1) != answers.argmax(-1)).mean() < 0.6


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"noise": 0.1}, "noise without effect: set collect=true, evaluate=true or both"),
        ({"collect": True}, "collect has nothing to do: set noise, delay, drop or parameters as well"),
        ({"delay": 1, "collect": True, "episodes": 5}, "episodes 5 has no effect without evaluate=true"),
        ({"parameters": {"__class__": [1.0, 2.0]}, "collect": True}, "expected a path such as gravity"),
        ({"parameters": {"g": [2.0, 1.0]}, "collect": True}, r"\[2, 1\] is empty"),
        ({"drop": 1.0, "collect": True}, "less than 1"),
        ({"parameters": {"g": [2.0]}, "collect": True}, "at least 2 items"),
    ],
)
def test_sections_that_make_no_sense(section: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        RobustConfig.model_validate(section)


def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    wrong = {
        "robust.parameters={masss: [1, 2]}": "has no attribute 'masss' in CartPoleEnv",
        "robust.parameters={gravity: [1]}": "expected a mapping of names to a list of 2 numbers",
        "robust.delay=1.5": "robust.delay",
    }
    for setting, line in wrong.items():
        assert main(["distill", "--out", str(out), "robust.collect=true", setting]) == 2
        told = capsys.readouterr().err
        assert line in told and told.count("\n") == 1, told
    native = ["env.backend=native", "robust.parameters={gravity: [0.9, 1.1]}", "robust.collect=true"]
    assert main(["distill", "--out", str(out), *native]) == 2
    assert "env.backend native: it cannot vary" in capsys.readouterr().err
    assert not out.exists()


def test_a_run_that_began_without_noise_has_no_measure_of_it() -> None:
    robust = RobustConfig(noise=0.1, collect=True)
    with pytest.raises(InputError, match="began without it"):
        disturbed(EnvSpec("CartPole-v1"), robust, None, ("noise",))
