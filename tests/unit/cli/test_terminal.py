"""The command as a user meets it: a real run in a process, on a pipe and on a terminal, to its end and cut short."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from policykd.cli.main import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")

SMALL = ("rollout.timesteps=2000", "rollout.rounds=2", "update.n_updates=20", "evaluate.episodes=4", "device=cpu")
COMMAND = (sys.executable, "-m", "policykd")


def on_a_terminal(words, cwd, until=None):
    """(exit code, everything shown); sends SIGINT as soon as `until` is shown."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")} | {"TERM": "xterm"}
    process = subprocess.Popen([*COMMAND, *words], cwd=cwd, env=env, stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    shown, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        if not select.select([master], [], [], 1.0)[0]:
            continue
        try:
            piece = os.read(master, 65536)
        except OSError:  # the last writer has gone
            break
        if not piece:
            break
        shown += piece
        if until is not None and until in shown:
            process.send_signal(signal.SIGINT)
            until = None
    os.close(master)
    return process.wait(timeout=60), shown.decode()


def test_a_run_on_a_pipe_and_what_it_leaves(tmp_path, capsys):
    done = subprocess.run([*COMMAND, "distill", *SMALL], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stderr.splitlines()] == [
        "baseline",
        "round 1/2",
        "round 2/2",
        "report",
    ]
    assert "\x1b" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    (folder,) = (tmp_path / "runs").iterdir()
    for words in (["evaluate", str(folder), "--episodes", "3"], ["inspect", str(folder)]):
        assert main([*words, "--json"]) == 0
        json.loads(capsys.readouterr().out)
        assert main(words) == 0
        assert "CartPole-v1" in capsys.readouterr().out


def test_a_bar_on_a_terminal_and_the_cursor_comes_back(tmp_path):
    code, shown = on_a_terminal(["distill", *SMALL, "--keep", "1.9"], tmp_path)
    assert code == 3, shown
    assert re.search("round [12]/2", shown), "the bar is drawn ten times a second, and rounds are short"
    assert "━" in shown
    assert "FAILED" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_interrupted_it_says_how_to_go_on_and_goes_on(tmp_path):
    code, shown = on_a_terminal(
        ["distill", "--out", "run", "rollout.rounds=60", "device=cpu"], tmp_path, until=b"round 2/60"
    )
    assert code == 130, shown
    assert "policykd: stopped by SIGINT; continue with --resume run" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    code, again = on_a_terminal(["distill", "--resume", "run"], tmp_path, until=b"/60 ")
    assert code == 130, again
    assert "round 1/60" not in again
