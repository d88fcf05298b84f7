"""Timesteps that a warm start saves: whole runs of growing length in a related environment, with and without one."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import described, table
from policykd import distill, evaluate
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import EnvConfig

REACHED = 0.95  # retention that is asked for, on average over training seeds
ROUNDS = (1, 2, 4, 8)
STEPS = 200  # of a round, in one environment
WIDTH = 16
HEAD = ("task", "first weights", "timesteps", "retention, mean", "lowest", "highest")


@dataclass(frozen=True)
class Task:
    """A student of the teacher `before` is there, and one of `teacher` is wanted, under this gravity."""

    name: str
    before: str
    teacher: str
    gravity: float = 10.0


TASKS = (
    Task("Pendulum, gravity 10 to 7", "sac/Pendulum-v1_1", "sac/Pendulum-v1_1", 7.0),
    Task("Pendulum, teacher TQC to SAC", "tqc/Pendulum-v1_1", "sac/Pendulum-v1_1"),
)


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether a warm start reached the retention with no more timesteps in every task."""
    rows, needed, good = list[list[str]](), list[list[str]](), True
    for task in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            runs = _Runs(task, options.teachers, Path(folder), range(options.seeds))
            found = {start: runs.curve(start) for start in ("random", "student")}
            found["student"] = {0: (0, runs.as_it_was())} | found["student"]
        for start, curve in found.items():
            for steps, held in curve.values():
                spread = [f"{value:.3f}" for value in (held.mean(), held.min(), held.max())]
                rows.append([task.name, start, f"{steps:,}", *spread])
        first = [_reached(found[start]) for start in ("random", "student")]
        good = good and first[1] <= first[0]
        needed.append([task.name, *(f"{steps:,.0f}" for steps in first)])
    needs = table(("task", "random weights", "warm start"), needed)
    words = {"machine": described(), "seeds": options.seeds, "reached": REACHED, "width": WIDTH, "steps": STEPS}
    return PAGE.format(table=table(HEAD, rows), needed=needs, **words), good


@dataclass(frozen=True)
class _Runs:
    """The runs of one task in `folder`."""

    task: Task
    teachers: Path
    folder: Path
    seeds: range

    def curve(self, start: str) -> dict[int, tuple[int, np.ndarray]]:
        """Timesteps, and retention by seed, for each number of rounds."""
        found = {}
        for rounds in ROUNDS:
            results = [self._run(start, rounds, seed) for seed in self.seeds]
            held = np.array([result["retention"]["value"] for result in results])
            found[rounds] = int(results[0]["timesteps"]), held
            sys.stderr.write(f"{self.task.name} {start} {rounds} {held}\n")
        return found

    def as_it_was(self) -> np.ndarray:
        """Retention [seeds] of the student that is there, in the new environment."""
        env = EnvConfig(id="Pendulum-v1", kwargs={"g": self.task.gravity})
        teacher = str(self.teachers / self.task.teacher)
        judged = [evaluate(self._before(seed), teacher=teacher, env=env) for seed in self.seeds]
        return np.array([result["retention"]["value"] for result in judged])

    def _run(self, start: str, rounds: int, seed: int) -> dict[str, Any]:
        words = [f"env.kwargs={{g: {self.task.gravity}}}", f"rollout.rounds={rounds}", "rollout.n_envs=1"]
        words += [f"rollout.n_steps={STEPS}"]
        if start == "student":
            words.append(f"student.start={self._before(seed)}")
        return self._distilled(self.task.teacher, words, seed, self.folder / f"{start}-{rounds}-{seed}")

    def _before(self, seed: int) -> Path:
        """The student that is there: trained once for each seed, with default settings."""
        out = self.folder / f"before-{seed}"
        if not (out / "result.json").is_file():
            self._distilled(self.task.before, [], seed, out)
        return out

    def _distilled(self, teacher: str, words: list[str], seed: int, out: Path) -> dict[str, Any]:
        cli = {"teacher": str(self.teachers / teacher)}
        return distill(load_config(None, [*words, f"student.width={WIDTH}", f"seed={seed}"], cli), out=out).result


def _reached(curve: dict[int, tuple[int, np.ndarray]]) -> float:
    """The fewest timesteps from which on the mean retention is what is asked for."""
    last = np.inf
    for steps, held in reversed(curve.values()):
        if held.mean() < REACHED:
            break
        last = steps
    return last


PAGE = """# Timesteps that a warm start saves

`python -m benchmarks warm_start --seeds {seeds} --out docs/benchmarks`: a student of two layers of {width} is distilled
with default settings; then whole runs of 1, 2, 4 and 8 rounds of {steps} steps of one environment, for the same teacher
under another gravity, or for another teacher of the same task, from random weights or from that student
(`student.start`). Retention on 100 report episodes, over {seeds} training seeds; 0 timesteps: that student as it was.
Its own timesteps are not counted: it was there already.

Machine: {machine}.

Timesteps from which on the mean retention is at least {reached}:

{needed}
All runs:

{table}"""
