"""Equal seeds give equal bytes; a run killed at any moment and resumed gives them too.

Red when a shard depends on anything but (weights, environment, seed, steps), when the checkpoint forgets a piece of
state, or when a file is written in place.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from policykd import api
from policykd.spine.errors import InputError
from tests.house.rules import ROOT

DRIVER = ROOT / "tests" / "support" / "killed_run.py"
MOMENTS = [
    "baseline",
    "collect",
    "label",
    "update",
    "select",
    "shard-0002.safetensors/before",
    "shard-0002.safetensors/after",
    "state-0002.safetensors/before",
    "state-0002.safetensors/after",
    "latest.json/before",
    "latest.json/after",
    "report",
    "artifact",
]


def _run(out: Path, moment: str, teacher: str = "builtin:cartpole") -> int:
    return subprocess.run([sys.executable, str(DRIVER), str(out), moment, teacher], cwd=ROOT, check=False).returncode


@cache
def _reference(folder: Path, teacher: str) -> bytes:
    out = folder / teacher.replace(":", "-")
    assert _run(out, "never", teacher) == 0
    return (out / "student.safetensors").read_bytes()


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_gives_the_same_bytes(moment, folder, tmp_path):
    out = tmp_path / "run"
    assert _run(out, moment) == -signal.SIGKILL, "the trap did not close"
    api.resume(out)
    assert (out / "student.safetensors").read_bytes() == _reference(folder, "builtin:cartpole")
    assert not list(out.rglob(".*.tmp")), "a temporary file was left behind"


def test_a_run_whose_settings_were_taken_away_is_refused(tmp_path):
    out = tmp_path / "run"
    assert _run(out, "latest.json/after") == -signal.SIGKILL
    (out / "config.yaml").write_text("")
    with pytest.raises(InputError, match=r"config\.yaml: .* is auto, but this run has begun"):
        api.resume(out)


@pytest.mark.parametrize(("teacher", "moment"), [("builtin:lunarlander", "update"), ("builtin:pendulum", "select")])
def test_environments_stepped_one_by_one_resume_to_the_same_bytes(teacher, moment, folder, tmp_path):
    out = tmp_path / "run"
    assert _run(out, moment, teacher) == -signal.SIGKILL
    api.resume(out)
    assert (out / "student.safetensors").read_bytes() == _reference(folder, teacher)


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(folder, tmp_path):
    from policykd.spine.config.load import load_config
    from tests.support.killed_run import SMALL

    first = _reference(folder, "builtin:cartpole")
    again = api.distill(load_config(None, SMALL, {}), out=tmp_path / "again")
    other = api.distill(load_config(None, SMALL, {"seed": 1}), out=tmp_path / "other")
    assert (again.folder / "student.safetensors").read_bytes() == first
    assert (other.folder / "student.safetensors").read_bytes() != first
