"""Every example of configs/methods, by the commands in its first lines: does it run, how long, what comes out?"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import described, table
from policykd.spine.files import read_json

EXAMPLES = Path(__file__).parent.parent / "configs" / "methods"
SECONDS = 120  # of a distillation, a fine-tuning, a search; what is trained before it is not counted
HEAD = ("example", "commands", "seconds of all", "of the example", "parameters", "retention", "bound")


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """One row an example; the last command that names it must end in time, and well."""
    rows, met = [], True
    for path in sorted(EXAMPLES.glob("*.yaml")):
        name = f"methods/{path.stem}"
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            spent = [(words, _run(words, Path(folder))) for words in _commands(path)]
            result = _result(Path(folder))
        own = [seconds for words, (seconds, _) in spent if name in words]
        good = bool(own) and sum(own) <= SECONDS and all(code == 0 for _, (_, code) in spent)
        met &= good
        total = sum(seconds for _, (seconds, _) in spent)
        rows.append([name, str(len(spent)), f"{total:.0f}", f"{sum(own):.0f}", *result, "met" if good else "missed"])
        sys.stderr.write(f"{' | '.join(rows[-1])}\n")
    return PAGE.format(machine=described(), seconds=SECONDS, table=table(HEAD, rows)), met


def _commands(example: Path) -> list[list[str]]:
    """The words of its comment lines that are commands."""
    lines = (line.removeprefix("#").strip() for line in example.read_text("utf-8").splitlines())
    return [shlex.split(line, comments=True) for line in lines if line.startswith("policykd ")]


def _run(words: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and exit code; RUN stands for the newest run."""
    found = [str(_newest(folder)) if word == "RUN" else word for word in words[1:]]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "policykd", *found], check=False, cwd=folder, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begin, done.returncode


def _newest(folder: Path) -> Path:
    """The run folder whose result was written last."""
    return max(folder.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime).parent


def _result(folder: Path) -> tuple[str, str]:
    """Parameters and retention of the newest run, where one ended."""
    if not list(folder.glob("runs/*/result.json")):
        return "", ""
    result = read_json(_newest(folder) / "result.json")
    assert result is not None
    return f"{result['student']['params']:,}", f"{result['retention']['value']:.3f}"


PAGE = """# The examples of the methods

`python -m benchmarks examples --out docs/benchmarks`: the commands in the first lines of each file of
`configs/methods`, as they stand there, each example in a folder of its own. Bounds: every command succeeds, and those
that name the example take at most {seconds} s together; a teacher or student that is trained before is not counted.
Retention is that of the last run, on its report seeds; of several tasks that of the first.

Machine: {machine}.

{table}"""
