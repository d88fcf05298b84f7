"""`policykd shrink --keep 0.99` with default settings on every teacher: how small, how sure, how long."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import described, table
from policykd.spine.files import read_json

TEACHERS = (
    *("a2c/Acrobot-v1_1", "a2c/BipedalWalker-v3_1", "ddpg/MountainCarContinuous-v0_1", "dqn/MountainCar-v0_1"),
    *("ppo/CartPole-v1_1", "ppo/HalfCheetah-v3_1", "ppo/LunarLander-v2_1", "qrdqn/Acrobot-v1_1", "sac/Pendulum-v1_1"),
    *("tqc/Pendulum-v1_1", "trpo/LunarLanderContinuous-v2_1", "trpo/Swimmer-v3_1"),
)
SLOW = {"a2c/BipedalWalker-v3_1", "ppo/HalfCheetah-v3_1", "trpo/Swimmer-v3_1"}  # MuJoCo and BipedalWalker
SECONDS, SLOW_SECONDS = 90, 240
COMPRESSION = 60  # geometric mean, at least
HEAD = (
    *("teacher", "seed", "parameters", "compression", "retention (95 %)", "gate's lower end", "attempts", "episodes"),
    *("timesteps", "seconds", "bounds"),
)


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """One search per teacher and seed, each a process of its own as its user would start it."""
    rows, ratios, met = [], [], True
    for name in options.only or TEACHERS:
        for seed in range(options.seeds):
            result, seconds = _shrink(options.teachers / name, seed)
            good = bool(result["gate"]["passed"]) and seconds <= (SLOW_SECONDS if name in SLOW else SECONDS)
            met &= good
            ratios.append(float(result["compression"]))
            rows.append(_row(name, seed, result, seconds, good))
            sys.stderr.write(f"{' | '.join(rows[-1])}\n")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    page = PAGE.format(
        machine=described(), seeds=options.seeds, mean=mean, table=table(HEAD, rows), least=COMPRESSION, fast=SECONDS,
        slow=SLOW_SECONDS,
    )  # fmt: skip
    return page, met and mean >= COMPRESSION


def _shrink(teacher: Path, seed: int) -> tuple[dict[str, Any], float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["shrink", "--keep", "0.99", "--teacher", str(teacher), "--seed", str(seed), "--out", str(out)]
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "policykd", *words], check=False, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        result = read_json(out / "result.json")
    assert result is not None
    return result, seconds


def _row(name: str, seed: int, result: dict[str, Any], seconds: float, good: bool) -> list[str]:
    low, high = result["retention"]["ci95"]
    gate = result["gate"]
    return [
        name,
        str(seed),
        f"{result['teacher']['params']:,} → {result['student']['params']:,}",
        f"{result['compression']:,.0f} x",
        f"{result['retention']['value']:.3f} ({low:.3f} to {high:.3f})",
        f"{gate['lower']:.4f}" + ("" if gate["passed"] else ", FAILED"),
        str(gate["attempts"]),
        str(result["episodes"]),
        f"{result['timesteps']:,}",
        f"{seconds:.0f}",
        "met" if good else "missed",
    ]


PAGE = """# How small it gets

`python -m benchmarks shrink --seeds {seeds} --out docs/benchmarks`: `policykd shrink --keep 0.99` with default
settings, each teacher by its folder alone, no setting per environment; wall-clock seconds of the whole command, imports
and report included. Every student was confirmed on fresh seeds: non-inferior to 99 % of its teacher's return, margin 2
points (lower end of the gate's interval at least 0.97, at its share of an error of 2.5 %). The ARS teacher of 33
parameters is left out: a linear student has as many. The bounds: confirmed; at most {fast} s ({slow} s for MuJoCo and
BipedalWalker); geometric mean of the compression at least {least}.

Machine: {machine}.

Geometric mean of the compression: **{mean:,.0f} x**.

{table}"""
