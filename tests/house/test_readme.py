"""What README, CONTRIBUTING and docs/architecture.md tell people to type exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import import_module
from itertools import pairwise

import pytest

from policykd.spine.config.load import find_config
from tests.house.rules import ROOT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _lines(prefix: str) -> list[str]:
    """Lines of the shell fences that begin with a word, with their comments and prompts taken off."""
    found = []
    for document in ("README.md", "CONTRIBUTING.md"):
        for language, body in FENCE.findall((ROOT / document).read_text("utf-8")):
            if language in {"sh", "bash", "console", "powershell"}:
                lines = (line.removeprefix("$ ").strip() for line in body.splitlines())
                found += [line for line in lines if line.split(" ")[0] == prefix]
    return sorted(set(found))


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_the_two_commands_stand_there():
    assert {"make demo", "make test"} <= {" ".join(shlex.split(line, comments=True)) for line in _lines("make")}


def test_the_python_interface_is_where_the_architecture_has_it():
    lines = (ROOT / "docs" / "architecture.md").read_text("utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("`policykd/api.py`"))
    for module, part in zip(("api", "studies"), line.split("`policykd/studies.py`"), strict=True):
        names = re.findall(r"`(\w+)`", part)
        assert names and not [name for name in names if not hasattr(import_module(f"policykd.{module}"), name)]


@pytest.mark.parametrize("line", _lines("make"))
def test_make_targets_exist(line):
    words = shlex.split(line, comments=True)[1:]
    assert {word for word in words if "=" not in word} <= _targets()


@pytest.mark.parametrize("line", [line for line in _lines("policykd") if "--config" in line])
def test_configurations_exist(line):
    words = shlex.split(line, comments=True)
    assert find_config(words[words.index("--config") + 1]).is_file()


@pytest.mark.parametrize("line", _lines("pip"))
def test_requirements_exist(line):
    words = shlex.split(line, comments=True)
    assert all((ROOT / file).is_file() for flag, file in pairwise(words) if flag == "-r")


@pytest.mark.parametrize("line", _lines("policykd"))
def test_commands_and_options_exist(line):
    words = shlex.split(line, comments=True)[1:]
    command = [word for word in words[:1] if not word.startswith("-")]
    done = subprocess.run(
        [sys.executable, "-m", "policykd", *command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(option)}\b", done.stdout), f"{option} is no option of {command}"


def test_the_python_example_runs_as_it_stands(tmp_path):
    fences = FENCE.findall((ROOT / "README.md").read_text("utf-8"))
    (example,) = (body for language, body in fences if language == "python")
    assert len([line for line in example.splitlines() if line.strip()]) < 10
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
