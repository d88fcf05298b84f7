"""`policykd shrink` with nothing replaced: its exit codes, its messages, and a search that a signal stops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from policykd import api
from policykd.cli.main import main

SMALL = [
    *("rollout.rounds=4", "rollout.n_envs=6", "rollout.n_steps=60", "update.n_updates=40", "device=cpu"),
    *("student.width=[1,8]", "student.depth=[0,1]", "search.generations=1", "search.seeds=1"),
    *("evaluate.select_episodes=8", "gate.least_episodes=20", "gate.most_episodes=100"),
    "env.wrappers=[{TimeLimit: {max_episode_steps: 60}}]",
]


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; gives (exit code, standard output, lines of standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return call


@pytest.fixture
def refused(cli):
    def call(*arguments):
        code, out, lines = cli(*arguments)
        assert (code, out) == (2, "")
        assert len(lines) == 1, lines
        return lines[0].removeprefix("policykd: ")

    return call


def test_it_names_what_passed_and_where_it_is(cli, tmp_path):
    code, out, err = cli("shrink", "--keep", "0.5", *SMALL)
    assert code == 0
    for words in ("retention", "gate", "passed", "compression", "runs/shrink-ppo-CartPole-v1-1", "policykd play"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80
    text = "\n".join(err)
    assert "generation 1: 3 students of 9 to 58 parameters" in text
    assert "attempt 1 of 3" in text
    folder = tmp_path / "runs/shrink-ppo-CartPole-v1-1"
    assert {"result.json", "frontier.json", "student.safetensors", "config.yaml"} <= {p.name for p in folder.iterdir()}
    code, again, err = cli("shrink", "--resume", folder)
    assert (code, again.split("\n\n")[0]) == (0, out.split("\n\n")[0])
    assert "finished" in err[0]


def test_exit_code_3_keeps_the_best(cli, tmp_path):
    code, out, _ = cli("shrink", "--keep", "1.5", "--margin", "0", "--out", "r", *SMALL)
    assert code == 3
    assert "FAILED" in out
    result = json.loads((tmp_path / "r/result.json").read_text())
    assert result["gate"]["passed"] is False
    members = json.loads((tmp_path / "r/frontier.json").read_text())["members"]
    assert result["student"]["params"] in [m["params"] for m in members]
    assert (tmp_path / "r/student.safetensors").is_file()
    assert cli("evaluate", "r", "--episodes", "2")[0] == 0
    assert cli("shrink", "--resume", "r")[0] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-params", "8"], "search.max_params: no student is so small; the smallest of the grid has 9 parameters"),
        (["--max-bytes", "64"], "search.max_bytes: no student is so small"),
        (["--max-us", "0.000001"], "search.max_us"),
        (["--max-params", "0"], "--max-params: found 0"),
        (["--keep", "nan"], "--keep: found nan"),
        (["student.seeds=3"], "search.seeds"),
        (["evaluate.select_first_seed=12000"], "overlap the seeds of the gate"),
        (["--resume", "nothing"], "nothing to resume"),
        (["--resume", "nothing", "--max-params", "5"], "--resume"),
    ],
)
def test_wrong_input_is_one_line_and_makes_no_folder(refused, tmp_path, arguments, words):
    assert words in refused("shrink", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_small_limit_is_kept(cli, tmp_path):
    code, _, _ = cli("shrink", "--max-params", "10", "--keep", "0.2", "--out", "r", *SMALL)
    assert code in (0, 3)
    members = json.loads((tmp_path / "r/frontier.json").read_text())["members"]
    assert {m["params"] for m in members} == {9, 10}


def test_a_search_is_no_setting_of_distill(refused, tmp_path):
    assert "policykd shrink" in refused("distill", "search.seeds=2")
    assert not list(tmp_path.iterdir())


def test_a_printed_configuration_is_a_search(cli):
    code, out, _ = cli("shrink", "--print-config", "--max-params", "100", "--max-us", "3.5", *SMALL)
    assert code == 0
    found = yaml.safe_load(out)
    assert found["gate"]["keep"] == 0.99
    assert (found["search"]["max_params"], found["search"]["max_us"]) == (100, 3.5)


def test_sigterm_ends_with_130_and_can_be_resumed(tmp_path):
    """In the middle of the rounds; no process is left behind."""
    command = [
        sys.executable,
        "-m",
        "policykd",
        "shrink",
        "--out",
        "r",
        "--keep",
        "0.5",
        *SMALL,
        "update.n_updates=300",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    latest = tmp_path / "r" / "checkpoints" / "latest.json"
    deadline = time.monotonic() + 60
    while not latest.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "--resume r" in err.splitlines()[-1]
    assert not _in_session(process.pid)
    assert not (tmp_path / "r" / "result.json").exists()
    assert api.resume(tmp_path / "r").passed is not None
    assert (tmp_path / "r" / "result.json").is_file()


def _in_session(session: int) -> list[int]:
    """Processes that the command left."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
