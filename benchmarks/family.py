"""What a family costs: widths 4, 8, 16, 32, 64 in one run against width 64 alone, alternating repeats."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.machine import described, table
from policykd import Config, distill
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.config.student import StudentConfig

WIDTHS = [4, 8, 16, 32, 64]
TEACHERS = ("builtin:cartpole", "builtin:lunarlander", "builtin:pendulum")
TIMESTEPS, ENVS = 64_000, 10
MOST = 2.0  # ratio to width 64 alone


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """Seconds of collect + label + update of both, and their ratio, per teacher; whether every median is below 2."""
    rows, good = [], True
    for teacher in options.only or TEACHERS:
        family, alone = [], []
        for repeat in range(options.seeds):
            family.append(_seconds(teacher, WIDTHS, repeat))
            alone.append(_seconds(teacher, 64, repeat))
            sys.stderr.write(f"{teacher} {repeat}: family {family[-1]:.1f} s, width 64 {alone[-1]:.1f} s\n")
        ratios = [a / b for a, b in zip(family, alone, strict=True)]
        good = good and median(ratios) < MOST
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([teacher, f"{median(family):.1f}", f"{median(alone):.1f}", spread])
    head = ["teacher", "five widths, s", "width 64 alone, s", "ratio, median (range)"]
    page = PAGE.format(machine=described(), table=table(head, rows), seeds=options.seeds, timesteps=TIMESTEPS)
    return page, good


def _seconds(teacher: str, width: int | list[int], seed: int) -> float:
    """Collect + label + update at equal timesteps and environments."""
    rollout = RolloutConfig(timesteps=TIMESTEPS, n_envs=ENVS)
    config = Config(teacher=teacher, seed=seed, student=StudentConfig(width=width), rollout=rollout)
    with tempfile.TemporaryDirectory() as folder:
        spent = distill(config, out=Path(folder) / "run").result["seconds"]
    return float(spent["collect"] + spent["label"] + spent["update"])


PAGE = """# The price of a family

`python -m benchmarks family --seeds {seeds} --out docs/benchmarks`: {timesteps:,} timesteps, ten
environments, one run with widths 4, 8, 16, 32 and 64 against one with width 64 alone, in turn, in one process.
Collecting, labelling and updating are counted; judging on episodes is not. The bound: a median below 2.

Machine: {machine}.

{table}"""
