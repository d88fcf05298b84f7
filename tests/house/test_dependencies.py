"""pyproject.toml, the lock files and the imports of the package say the same."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata

from tests.house.rules import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _names(requirements: list[str]) -> set[str]:
    return {_normal(re.match(r"[\w.-]+", line).group()) for line in requirements}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _locked(file: str) -> set[tuple[str, str]]:
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements" / file).read_text("utf-8"), re.MULTILINE)
    return {(_normal(name), version) for name, version in pins}


def _imported() -> set[str]:
    """Top-level names of everything that the packages import, wherever the import stands."""
    found = set()
    for path in (path for folder in ("policykd", "envs") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    brought = {"pygame"}  # or pygame-ce: which one, gymnasium[classic-control] says
    return found - set(sys.stdlib_module_names) - {"policykd", "policykd_envs"} - brought


def test_every_import_is_declared():
    extras = PROJECT["optional-dependencies"]
    used = ("atari", "box2d", "mujoco", "video", "onnx", "hub", "minari", "tune", "envpool")
    optional = [line for extra in used for line in extras[extra]]
    declared = _names(PROJECT["dependencies"] + optional)
    owners = metadata.packages_distributions()
    missing = [name for name in _imported() if declared.isdisjoint(map(_normal, owners.get(name, [name])))]
    assert missing == []


def test_every_dependency_is_locked():
    locked = {name for name, _ in _locked("lock.txt")}
    assert _names(PROJECT["dependencies"]) - locked == {"torch"}
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "envpool"}  # 825 MB
    tools = {name for name, _ in _locked("dev.txt")}
    assert _names([line for lines in extras.values() for line in lines]) - tools == {"policykd"}


def test_development_differs_from_use_only_by_tools():
    assert _locked("lock.txt") <= _locked("dev.txt")


def test_every_pin_has_a_hash():
    for file in ("lock.txt", "dev.txt"):
        for block in re.split(r"\n(?=[\w.-]+==)", (ROOT / "requirements" / file).read_text("utf-8"))[1:]:
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_version_is_said_once():
    import policykd

    assert policykd.__version__ == PROJECT["version"] == metadata.version("policykd")
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
