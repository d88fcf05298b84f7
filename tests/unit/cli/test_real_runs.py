"""The commands with nothing replaced: small real runs, and wrong input that must leave everything as it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from policykd.cli.main import main

SMALL = ("rollout.rounds=2", "update.n_updates=20", "evaluate.episodes=5", "evaluate.select_episodes=2", "device=cpu")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of a few hundred milliseconds. Tests that write take a copy."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["distill", "--out", str(out), "--keep", "0.01", *SMALL]) == 0
    return out


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; gives (exit code, standard output, lines of standard error)."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return call


@pytest.fixture
def refused(cli):
    """The one line on standard error of a command that must end with exit code 2 and print nothing else."""

    def call(*arguments):
        code, out, lines = cli(*arguments)
        assert (code, out) == (2, "")
        assert len(lines) == 1, lines
        assert lines[0].startswith("policykd: ")
        return lines[0].removeprefix("policykd: ")

    return call


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def shell(*arguments, cwd, **more):
    command = [sys.executable, "-m", "policykd", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", **more
    )


# --- what works -------------------------------------------------------------------------------------------------------


def test_distill_shows_the_result_and_names_the_folder(cli, tmp_path):
    code, out, err = cli("distill", "--keep", "0.01", *SMALL)
    assert code == 0
    folder = "runs/ppo-CartPole-v1-1"
    for word in ("teacher", "student", "random", "retention", "gate", "passed", "compression", folder):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert [line.split("  ")[0] for line in err] == ["baseline", "round 1/2", "round 2/2", "report"]
    files = {"config.yaml", "result.json", "student.safetensors", "report.html", "frontier.png", "frontier.svg"}
    assert files <= set(digest(tmp_path / folder))
    assert f"{folder}/report.html" in out


def test_exit_code_3_shows_the_result_and_keeps_the_run(cli, tmp_path):
    code, out, _ = cli("distill", "--keep", "1.5", "--margin", "0", "--out", "r", *SMALL)
    assert code == 3
    assert "gate" in out
    assert "FAILED" in out
    assert json.loads((tmp_path / "r/result.json").read_text())["gate"]["passed"] is False
    assert (tmp_path / "r/student.safetensors").is_file()


def test_a_printed_configuration_can_be_run(cli, tmp_path):
    _, out, _ = cli("distill", "--print-config", *SMALL)
    (tmp_path / "mine.yaml").write_text(out)
    assert cli("distill", "--config", "mine.yaml", "--out", "r")[0] == 0


def test_resuming_a_finished_run_shows_its_result_again(cli, run_folder):
    before = digest(run_folder)
    code, out, err = cli("distill", "--resume", run_folder)
    assert code == 0
    assert "retention" in out
    assert len(err) == 1
    assert "finished" in err[0]
    assert digest(run_folder) == before


def test_report_is_written_again_to_the_same_bytes(cli, tmp_path, run_folder):
    shutil.copytree(run_folder, tmp_path / "r")
    before = digest(tmp_path / "r")
    for name in ("report.html", "frontier.png", "frontier.svg"):
        (tmp_path / "r" / name).unlink()
    code, out, err = cli("report", "r")
    assert (code, out.split(), err) == (0, ["report", str(Path("r/report.html"))], [])
    assert digest(tmp_path / "r") == before
    assert "non-inferior to 1 %" in (tmp_path / "r/report.html").read_text("utf-8")


def test_a_report_that_cannot_be_written_does_not_lose_the_run(cli, tmp_path, run_folder):
    shutil.copytree(run_folder, tmp_path / "r")
    (tmp_path / "r/report.html").unlink()
    (tmp_path / "r/report.html").mkdir()
    code, out, err = cli("distill", "--resume", "r")
    assert code == 0 and "retention" in out
    assert "the run is whole, but report.html is not" in err[-1] and "policykd report r tries again" in err[-1]
    assert "report.html" not in out


def test_evaluate_prints_a_table(cli, run_folder):
    code, out, err = cli("evaluate", run_folder, "--teacher", "builtin:cartpole", "--episodes", 4)
    assert code == 0
    for word in ("policy", "teacher", "random", "retention", "agreement", "seeds 10000 to 10003"):
        assert word in out
    assert err == ["report"]


@pytest.mark.parametrize("source", ["student", "teacher"])
def test_json_stands_alone_on_standard_output(cli, run_folder, source):
    name = str(run_folder) if source == "student" else "builtin:cartpole"
    code, out, err = cli("evaluate", name, "--episodes", 3, "--seed", 5, "--stochastic", "--json")
    result = json.loads(out)
    assert (code, err) == (0, ["report"])
    assert (result["episodes"], result["seeds"], result["deterministic"]) == (3, [5, 7], False)
    assert set(result["return"]) == {"mean", "std", "ci95"}


def test_inspect(cli, run_folder):
    for name, kind in ((str(run_folder), "student"), ("builtin:cartpole", "teacher")):
        code, out, err = cli("inspect", name)
        assert (code, err) == (0, [])
        assert out.split()[:2] == ["kind", kind]
        code, out, err = cli("inspect", name, "--json")
        assert json.loads(out, parse_constant=pytest.fail)["kind"] == kind


def test_train_makes_a_teacher_that_can_be_inspected(cli, tmp_path):
    small = ("timesteps=512", "n_envs=2", "evaluate.episodes=2", "policy_kwargs={net_arch: [8]}")
    code, out, _ = cli("train", "--config", "teachers/cartpole", "--out", "t", "--seed", 3, *small)
    assert code == 0
    assert "t" in out
    assert json.loads((tmp_path / "t/teacher.json").read_text())["seed"] == 3
    assert cli("inspect", "t")[0] == 0


# --- wrong input: one line, exit code 2 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, ["r: no such folder"]),
        ({}, ["r: no result.json in it", "give the folder of a finished run"]),
        ({"config.yaml": "seed: 0"}, ["r: no result.json in it", "policykd distill --resume r"]),
        ({"result.json": "{"}, ["result.json: not JSON"]),
    ],
)
def test_report_refuses_what_is_no_finished_run(refused, tmp_path, files, words):
    for name, text in (files or {}).items():
        (tmp_path / "r").mkdir(exist_ok=True)
        (tmp_path / "r" / name).write_text(text)
    if files == {}:
        (tmp_path / "r").mkdir()
    line = refused("report", "r")
    for word in words:
        assert word in line
    assert not (tmp_path / "r/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--teacher", "none.zip"], ["none.zip", "no such file"]),
        (["--teacher", "builtin:cartpol"], ["cartpol"]),
        (["--env", "CartPol-v1"], ["CartPol-v1", "CartPole-v1"]),
        (["--env", "Acrobot-v1"], ["Acrobot-v1", "observation"]),
        (["--env", "some_package:Id-v0"], ["some_package", "--allow-import"]),
        (["--config", "none.yaml"], ["none.yaml", "no such file"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--device", "tpu"], ["tpu"]),
        (["--keep", "-1"], ["--keep", "-1"]),
        (["--resume", "none"], ["none", "nothing to resume"]),
        (["--resume", "none", "--seed", "1"], ["leave the other options"]),
        (["student.width=0"], ["student.width", "0", "from 1 to 4096"]),
    ],
)
def test_distill_refuses(refused, tmp_path, arguments, words):
    line = refused("distill", *arguments)
    for word in words:
        assert word in line
    assert not list(tmp_path.rglob("result.json"))


def test_every_mistake_of_a_configuration_has_its_line(cli):
    code, out, err = cli("distill", "student.widht=3", "rollout.rounds=0", "--seed", -1)
    assert (code, out) == (2, "")
    assert len(err) == 3
    assert [line.split(": ")[:2] for line in err] == [
        ["policykd", "student.widht"],
        ["policykd", "rollout.rounds"],
        ["policykd", "--seed"],
    ]


@pytest.mark.parametrize("command", ["distill", "evaluate", "inspect"])
def test_a_zip_that_is_no_model(refused, tmp_path, command):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    before = path.read_bytes()
    line = refused(command, *(["--teacher"] if command == "distill" else []), path)
    assert "a.zip" in line
    assert path.read_bytes() == before


def test_a_folder_in_use_is_left_alone(refused, run_folder):
    before = digest(run_folder)
    assert "not empty" in refused("distill", "--out", run_folder, *SMALL)
    assert "not empty" in refused("train", "--config", "teachers/cartpole", "--out", run_folder)
    assert digest(run_folder) == before


def test_a_place_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "file" in refused("distill", "--out", "file", *SMALL)
    assert "file" in refused("distill", "--out", "file/run", *SMALL)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder(refused, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "locked" in refused("distill", "--out", locked / "run", *SMALL)


def test_a_damaged_student(refused, run_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    student = copy / "student.safetensors"
    student.write_bytes(student.read_bytes()[:-40])
    for command in ("evaluate", "inspect", "play"):
        assert "student.safetensors" in refused(command, copy)


def test_what_a_file_says_cannot_drive_the_terminal(refused, tmp_path):
    (tmp_path / "c.yaml").write_text('"\\e[2Jx": 1\n', encoding="utf-8")
    line = refused("distill", "--config", "c.yaml")
    assert "\x1b" not in line
    assert r"\x1b[2Jx" in line


# --- as processes -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_sigterm_stops_with_a_checkpoint_and_130(tmp_path):
    long = ("rollout.rounds=500", "rollout.timesteps=1000000", "update.n_updates=20", "evaluate.select_episodes=2")
    process = shell("distill", "--out", "r", *long, "evaluate.episodes=4", cwd=tmp_path)
    assert process.stderr is not None
    try:
        heard = []
        while not heard or not heard[-1].startswith("round"):  # a round is done: there is a checkpoint
            heard.append(process.stderr.readline())
            assert heard[-1], heard
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "policykd: stopped by SIGTERM; continue with --resume r"
    assert (tmp_path / "r/checkpoints/latest.json").is_file()
    assert not (tmp_path / "r/result.json").exists()


# --- inspect --episodes -----------------------------------------------------------------------------------------------


def test_inspect_judges_and_ranks(cli, run_folder):
    code, out, err = cli("inspect", "builtin:cartpole", run_folder, "--episodes", 3, "--seed", 7)
    assert (code, err) == (0, ["judge"])
    for word in ("entropy", "above random", "seeds 7 to 9", "clearly better than 2", "builtin:cartpole"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = cli("inspect", "builtin:cartpole", run_folder, "--episodes", 3, "--json")
    assert [one["judged"]["rank"] for one in json.loads(out)] == [1, 2]
    code, out, _ = cli("inspect", "builtin:cartpole", "--episodes", 2, "--json")
    assert json.loads(out)["judged"]["episodes"] == 2


def test_inspect_of_several_files_gives_a_list(cli, run_folder):
    code, out, err = cli("inspect", "builtin:cartpole", run_folder, "--json")
    assert (code, err) == (0, [])
    assert [one["kind"] for one in json.loads(out)] == ["teacher", "student"]
    assert cli("inspect", "builtin:cartpole", run_folder)[1].count("\n  kind ") == 1


@pytest.mark.parametrize("words", [("--env", "X-v1"), ("--seed", 3), ("--allow-import",)])
def test_inspect_says_what_needs_episodes(refused, words):
    assert "add --episodes N" in refused("inspect", "builtin:cartpole", *words)


def test_sigterm_during_inspect_episodes_exits_130(tmp_path):
    process = shell("inspect", "builtin:cartpole", "--episodes", 100_000, cwd=tmp_path)
    assert process.stderr.readline() == "judge\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by SIGTERM" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a FIFO")
@pytest.mark.parametrize("command", ["inspect", "play"])
def test_sigterm_outside_of_any_loop_exits_130(tmp_path, command):
    os.mkfifo(tmp_path / "slow.zip")  # reading it waits for a writer
    process = shell(command, "slow.zip", cwd=tmp_path)
    writer = os.open(tmp_path / "slow.zip", os.O_WRONLY)  # returns when the command has opened it
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    assert (process.returncode, out, err) == (130, "", "policykd: stopped\n")
