"""The wheel holds what an installed user needs, and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.rules import ROOT

pytestmark = pytest.mark.xdist_group("wheel")  # one build for all of them


SHIPPED = {".py", ".yaml", ".zip", ".json", ".npz", ".safetensors", ".c", ".ld", ".css", ".js"}


def _run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, by way of the source distribution, as a package index would get it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    unpacked = folder / "source"
    shutil.unpack_archive(next(folder.glob("*.tar.gz")), unpacked, filter="data")
    from_source = folder / "from_source"
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", from_source, cwd=next(unpacked.iterdir()))
    built, rebuilt = next(folder.glob("*.whl")), next(from_source.glob("*.whl"))
    assert zipfile.ZipFile(built).namelist() == zipfile.ZipFile(rebuilt).namelist()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a command with the wheel's policykd in place of the checkout's; returns what it printed."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, "--no-deps", "--no-index", "--target", site, wheel, cwd=elsewhere)
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    env["PYTHONPATH"] = str(site)

    def run(*command: str | Path) -> str:
        return _run(sys.executable, *command, cwd=elsewhere, env=env)

    origin = Path(run("-c", "import policykd; print(policykd.__file__)").strip())
    assert origin.is_relative_to(site)
    return run


def test_wheel_holds_what_a_user_needs_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"policykd/py.typed", "policykd_envs/py.typed"} <= names
    folders = {"configs": "policykd/configs", "policykd": "policykd", "envs/policykd_envs": "policykd_envs"}
    for folder, inside in folders.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in SHIPPED:
                assert f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"policykd", "policykd_envs"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_installed_command_answers(installed):
    assert "distill" in installed("-m", "policykd", "--help")


def test_installed_command_distils_a_built_in_teacher(installed, tmp_path):
    out = tmp_path / "run"
    small = ("rollout.timesteps=2000", "rollout.rounds=2", "update.n_updates=20", "evaluate.episodes=4")
    installed("-m", "policykd", "distill", "--out", out, *small)
    assert {"config.yaml", "result.json", "student.safetensors", "report.html", "frontier.png"} <= {
        path.name for path in out.iterdir()
    }


def test_installed_environments_are_found_without_an_import(installed):
    code = "from policykd.rollout.envs import EnvSpec, make_env, make_native; spec = EnvSpec('LidarNav-v0'); "
    assert installed("-c", code + "print(make_env(spec).reset(seed=0)[0]['lidar'].shape)").strip() == "(16,)"
    code += "make_env(spec); print(type(make_native(spec, 3)).__module__)"
    assert installed("-c", code).strip() == "policykd_envs.lidar_nav_vector"


def test_gymnasium_itself_finds_them_by_their_module(installed):
    code = "import gymnasium; print(gymnasium.{}('policykd_envs:CartPoleNoVel-v0').reset(seed=0)[0].shape)"
    assert installed("-c", code.format("make")).strip() == "(2,)"
    assert installed("-c", code.format("make_vec")).strip() == "(1, 2)"


def test_installed_configurations_and_teachers_are_found(installed):
    code = "from {} import {} as names; print(*names())"
    configs = installed("-c", code.format("policykd.spine.config.load", "shipped_names")).split()
    folder = ROOT / "configs"
    assert configs == sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    teachers = installed("-c", code.format("policykd.teachers.load", "builtin_names")).split()
    assert "cartpole" in teachers
