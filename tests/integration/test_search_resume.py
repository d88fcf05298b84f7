"""A search that is killed at any moment and resumed ends in the same student, the same frontier and the same verdict.

Red when a decision depends on anything that the checkpoint does not hold.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from policykd import api
from tests.house.rules import ROOT

DRIVER = ROOT / "tests" / "support" / "killed_search.py"
_MORE = ("rung", "frontier.json/after", "update", "settle again", "episodes of the confirmation", "latest.json/before")
MOMENTS = [
    "confirm",
    *(pytest.param(moment, marks=pytest.mark.slow) for moment in _MORE),
]


def _run(out: Path, moment: str) -> int:
    return subprocess.run([sys.executable, str(DRIVER), str(out), moment], cwd=ROOT, check=False).returncode


def _outcome(out: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    members = json.loads((out / "frontier.json").read_text())["members"]
    for member in members:
        member["latency_us"] = None  # a time
    result = json.loads((out / "result.json").read_text())
    return (out / "student.safetensors").read_bytes(), members, result["gate"]


@cache
def _reference(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    out = folder / "whole"
    assert _run(out, "never") == 0
    return _outcome(out)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_comes_to_the_same_end(moment, folder, tmp_path):
    out = tmp_path / "run"
    assert _run(out, moment) == -signal.SIGKILL, "the trap did not close"
    api.resume(out)
    assert _outcome(out) == _reference(folder)
    assert not list(out.rglob(".*.tmp")), "a temporary file was left behind"
