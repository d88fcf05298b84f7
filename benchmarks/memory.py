"""What a million labelled HalfCheetah states take in memory: the growth of a process of its own, at its highest."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.machine import described, table

TEACHER, STATES, MOST_MB = "ppo/HalfCheetah-v3_1", 1_000_000, 400
HEAD = ("part", "MB", "bound")


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether the growth stays below the bound."""
    command = [sys.executable, "-m", "benchmarks.memory", str(options.teachers / TEACHER)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after, states, numbers = map(float, done.stdout.split())
    grown = after - before
    rows = [
        ["the process before: torch, the teacher, one round's environments and shard", f"{before:.0f}", ""],
        [f"at its highest with {states:,.0f} labelled states, less that", f"{grown:.0f}", f"below {MOST_MB}"],
        ["the numbers themselves, float32", f"{numbers:.0f}", ""],
    ]
    return PAGE.format(machine=described(), table=table(HEAD, rows)), grown < MOST_MB and states == STATES


def fill(source: str) -> str:
    """Megabytes before and at the highest, states, and megabytes of numbers: one round is collected, and then stored as
    often as it takes, along the way of a run."""
    from benchmarks.collection import Progress
    from policykd.data.dataset import Dataset
    from policykd.rollout.collect import Shard, collect, label
    from policykd.rollout.envs import teacher_spec
    from policykd.spine.config.rollout import RolloutConfig
    from policykd.spine.config.schema import EnvConfig
    from policykd.spine.seeding import SeedKey
    from policykd.students.normaliser import Normaliser
    from policykd.teachers.load import load_teacher

    torch.set_num_threads(1)
    teacher = load_teacher(source)
    spec, config = teacher_spec(EnvConfig(), teacher.info), RolloutConfig(kernel="numpy")
    rollout = collect(Shard(SeedKey(0, "collect"), 4, 1000, 1.0, config), spec, teacher, None, Progress())
    params = torch.from_numpy(label(rollout, teacher, Progress()).reshape(4000, -1))
    seen = teacher.packing.features(rollout.observation.reshape(4000, -1))
    normaliser = Normaliser.measured(seen)
    data = Dataset(seen.shape[1], params.shape[1], STATES, "cpu")
    before = _highest()
    while len(data) < STATES:
        data.append(normaliser.apply(torch.from_numpy(seen)), params)
    data.take(torch.randint(len(data), (50, 256)))  # as an update does
    numbers = 4 * (seen.shape[1] + params.shape[1]) * len(data) / 1e6
    return f"{before} {_highest()} {len(data)} {numbers}"


def _highest() -> float:
    """Megabytes of this process at its highest so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


PAGE = """# The memory of a million labelled states

`python -m benchmarks memory --out docs/benchmarks`: in a process of its own, one round of `ppo/HalfCheetah-v3_1` is
collected and stored again and again, until the data set holds a million states (17 numbers, labels of 12) and grows no
more. Counted is how much higher the process's resident memory got than before the first was stored. The bound: below
400 MB.

Machine: {machine}.

{table}"""


if __name__ == "__main__":
    sys.stdout.write(fill(str(Path(sys.argv[1]))))
