from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "gymnasium",
    "stable_baselines3",
    "sb3_contrib",
    "pydantic",
    "tensorboard",
    "scipy",
    "mujoco",
    "matplotlib",
)
_PROBE = "import sys, json; {}; print(json.dumps(sorted(sys.modules)))"


def _imported_by(statement: str) -> set[str]:
    """Top-level modules loaded after the statement, in a process that starts without anything else."""
    command = [sys.executable, "-c", _PROBE.format(statement)]
    names = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("statement", ["import policykd", "import policykd.cli.main"])
def test_start_up_is_light(statement):
    assert _imported_by(statement).isdisjoint(HEAVY)


def test_the_probe_sees_what_is_heavy():
    assert "pydantic" in _imported_by("import pydantic")
