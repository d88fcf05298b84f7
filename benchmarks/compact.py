"""Students for what Gymnasium lacks: with a memory, of pictures with masks, of fewer observations than their teachers.

Teachers are those of `configs/teachers`, trained into `runs/teachers` where they are not there yet.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import described, table
from policykd import distill, export, load_config, load_train_config, shrink, train_teacher
from policykd.api import Run
from policykd.exports.bundle import Wishes
from policykd.spine.config.schema import Config, EnvConfig
from policykd.spine.files import read_json

LEAST = 0.95  # lower end of the interval of retention
MOST = {"cartpolenovel": 2_000, "gridraid": 10_000, "lidarnav": 6_000, "pendulumnovel": 2_000}  # parameters
TARGETS = "onnx,c"
HEAD = (
    *("configuration", "seed", "kind", "teacher's return", "student's return", "retention (95 %)", "parameters"),
    *("seconds", "bounds"),
)
EXPORT_HEAD = (
    "configuration",
    "target",
    "test vectors",
    "worst deviation / tolerance",
    "episodes bit-equal",
    "artifact's return",
)
SHRINK_HEAD = (
    *("configuration", "parameters", "of the teacher's", "retention (95 %)", "gate's lower end", "architecture"),
    *("members tried", "seconds"),
)


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """Some runs of each configuration, the exports of the first, and a search; whether all bounds hold."""
    rows, exports, searches = [], [], []
    for name in options.only or MOST:
        _teacher(name)
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                begin = time.perf_counter()
                run = distill(_config(name, seed), out=Path(folder) / "run")
                rows.append(_row(name, seed, run, time.perf_counter() - begin))
                sys.stderr.write(f"{' | '.join(rows[-1])}\n")
                if seed == 0:
                    exports += _exported(name, run)
        if name != "pendulumnovel":  # which has wrappers, and is not asked for
            searches.append(_shrunk(name))
            sys.stderr.write(f"{' | '.join(searches[-1])}\n")
    tables = {
        "table": table(HEAD, rows),
        "exports": table(EXPORT_HEAD, exports),
        "searches": table(SHRINK_HEAD, searches),
    }
    good = all(row[-1] == "met" for row in rows)
    return PAGE.format(machine=described(), seeds=options.seeds, least=LEAST, targets=TARGETS, **tables), good


def _teacher(name: str) -> None:
    folder = Path("runs/teachers") / name
    if name != "pendulumnovel" and not (folder / "teacher.zip").is_file():
        train_teacher(load_train_config(f"teachers/{name}"), out=folder)


def _config(name: str, seed: int) -> Config:
    return load_config(name, [f"seed={seed}", "env.allow_import=true"])


def _row(name: str, seed: int, run: Run, seconds: float) -> list[str]:
    r: dict[str, Any] = run.result
    low, high = r["retention"]["ci95"]
    params = r["student"]["params"]
    return [
        name,
        str(seed),
        run.student.kind,
        f"{r['teacher']['return']['mean']:.2f}",
        f"{r['student']['return']['mean']:.2f}",
        f"{r['retention']['value']:.3f} ({low:.3f} to {high:.3f})",
        f"{params:,} of {r['teacher']['params']:,}",
        f"{seconds:.0f}",
        "met" if low >= LEAST and params <= MOST[name] else "missed",
    ]


def _exported(name: str, run: Run) -> list[list[str]]:
    env = EnvConfig(id="PendulumNoVel-v0") if name == "pendulumnovel" else None
    rows = []
    for written in export(run.folder, TARGETS, how=Wishes(env=env)):
        check = written["verified"]
        vectors, episodes = check["vectors"], check["episodes"]
        equal = f"{episodes['equal']} of {episodes['count']}"
        returned = f"{episodes['artifact']['mean']:.2f}, the student's {episodes['student']['mean']:.2f}"
        rows.append([name, check["target"], str(vectors["count"]), f"{vectors['worst']:.2f}", equal, returned])
    return rows


def _shrunk(name: str) -> list[str]:
    config = _config(name, 0)
    section = type(config.student).model_validate({"kind": config.student.kind, "keys": config.student.keys})
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        run = shrink(config.model_copy(update={"student": section}), out=Path(folder) / "run")
        seconds = time.perf_counter() - begin
        r = run.result
        tried = len((read_json(run.folder / "frontier.json") or {})["members"])
    low, high = r["retention"]["ci95"]
    return [
        name,
        f"{r['student']['params']:,}",
        f"{r['teacher']['params']:,} ({r['compression']:.0f} times)",
        f"{r['retention']['value']:.3f} ({low:.3f} to {high:.3f})",
        f"{r['gate']['lower']:.3f}",
        _shape(run.student.architecture()),
        str(tried),
        f"{seconds:.0f}",
    ]


def _shape(architecture: dict[str, Any]) -> str:
    if "hidden" in architecture:
        return f"remembers {architecture['hidden']}"
    maps = [c["channels"] for encoder in architecture["encoders"] for c in encoder.get("convolutions", ())]
    return f"maps {', '.join(map(str, maps))}, then {' and '.join(f'{i} x {o}' for i, o in architecture['layers'])}"


PAGE = """# Students with a memory, of pictures, and of fewer observations

`python -m benchmarks compact --seeds {seeds} --out docs/benchmarks`: the shipped configurations of these environments
with teachers trained by `configs/teachers`, {seeds} training seeds; 100 report episodes on seeds that chose nothing,
teacher and student on the same ones; percentile bootstrap, paired by seed. The bounds: lower end of the interval at
least {least}; at most 2,000 parameters (CartPoleNoVel, PendulumNoVel), 6,000 (LidarNav) and 10,000 (GridRaid).

Machine: {machine}.

{table}
The student of seed 0, exported ({targets}) and verified: test vectors (of a memory whole sequences with resets, of the
game with masks), then twenty episodes with the artifact in the loop.

{exports}
`policykd shrink` with default settings, student.kind as above: the smallest that is non-inferior to 99 % with a margin
of 2 points, confirmed on at least 200 fresh seeds.

{searches}"""
