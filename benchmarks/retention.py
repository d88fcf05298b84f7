"""Retention of default students by `--teacher FOLDER` alone, several training seeds, beside bare stepping."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import bare_step_us, described, table
from policykd import Config, distill, load_teacher
from policykd.api import Run
from policykd.rollout.envs import env_spec
from policykd.spine.config.load import load_config

# What must hold beside the interval, for some: parameters at most, seconds of collect + label + update on 2 cores.
BOUNDS = {
    "ppo/CartPole-v1_1": (2_000, 30),
    "dqn/MountainCar-v0_1": (2_000, 30),
    "ppo/LunarLander-v2_1": (2_000, 30),
    "sac/Pendulum-v1_1": (2_000, 30),
    "a2c/BipedalWalker-v3_1": (2_000, 30),
    "ppo/HalfCheetah-v3_1": (6_000, 90),
}
LEAST = 0.95  # lower end of the interval of retention
HEAD = (
    *("teacher", "seed", "teacher's return", "student's return", "retention (95 %)", "parameters"),
    *("timesteps", "collect + label + update, s", "bare stepping, s", "bounds"),
)


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """One run per teacher and seed; the page, and whether every row met its bounds."""
    rows = []
    for name in options.only or _folders(options.teachers):
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                run = distill(Config(teacher=str(options.teachers / name), seed=seed), out=Path(folder) / "run")
                rows.append(_row(name, seed, run, _bare(run, options.teachers / name)))
            sys.stderr.write(f"{' | '.join(rows[-1])}\n")
    page = PAGE.format(machine=described(), table=table(HEAD, rows), seeds=options.seeds, least=LEAST)
    return page, all(row[-1] != "missed" for row in rows)


def _folders(teachers: Path) -> list[str]:
    """ALGO/ENV_1 of every teacher, those with bounds of their own first."""
    found = {f"{path.parent.name}/{path.name}" for path in teachers.glob("*/*_1")}
    return [name for name in BOUNDS if name in found] + sorted(found - BOUNDS.keys())


def _bare(run: Run, source: Path) -> float:
    """Seconds that the run's timesteps would take with nothing but stepping, on the same backend."""
    config = load_config(str(run.folder / "config.yaml"))
    info = load_teacher(str(source)).info
    n_envs = config.rollout.n_envs
    assert isinstance(n_envs, int)
    return bare_step_us(env_spec(config.env, info.env_id), n_envs) * float(run.result["timesteps"]) / 1e6


def _row(name: str, seed: int, run: Run, bare: float) -> list[str]:
    r: dict[str, Any] = run.result
    spent = sum(r["seconds"][stage] for stage in ("collect", "label", "update"))
    low, high = r["retention"]["ci95"]
    return [
        name,
        str(seed),
        f"{r['teacher']['return']['mean']:.1f}",
        f"{r['student']['return']['mean']:.1f}",
        f"{r['retention']['value']:.3f} ({low:.3f} to {high:.3f})",
        f"{r['student']['params']:,} of {r['teacher']['params']:,}",
        f"{r['timesteps']:,}",
        f"{spent:.1f}",
        f"{bare:.1f}",
        _verdict(name, low, r["student"]["params"], spent),
    ]


def _verdict(name: str, low: float, params: int, spent: float) -> str:
    most, seconds = BOUNDS.get(name, (math.inf, math.inf))
    return "met" if low >= LEAST and params <= most and spent <= seconds else "missed"


PAGE = """# Retention with default settings

`python -m benchmarks retention --seeds {seeds} --out docs/benchmarks`: each teacher by its folder alone,
no setting per environment; 100 report episodes on seeds 10000 to 10099, which chose nothing; teacher, student and
random policy on the same seeds; percentile bootstrap, paired by seed. Bare stepping is the same number of environment
steps with random actions and nothing else, in the same process. The bounds: lower end of the interval at least
{least}; for the first six teachers also at most 2,000 parameters (6,000 for HalfCheetah) and at most 30 s (90 s) of
collecting, labelling and updating. Where the student is no smaller than its teacher, the run says so.

Machine: {machine}.

{table}"""
