"""Every method of learning where plain distillation does not reach the ceiling: the same timesteps, student and seeds.

Plain distillation stands at 0.5 to 0.9 of the teacher's return there, because the student is too small or has seen too
little. Each row changes one method and nothing else; rows are compared seed by seed with plain distillation's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.machine import described, table
from policykd import distill, load_config

HEAD = ("method", "settings", "retention, mean of seeds (lowest to highest)", "less plain's, 95 % interval", "helps")
_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # Student's, 97.5 %, n - 1


@dataclass(frozen=True)
class Task:
    """A teacher, and what makes its student fall short: a width, and the rounds and timesteps that all rows share."""

    teacher: str
    width: int
    rounds: int
    timesteps: int
    discrete: bool = False

    def settings(self, parts: int = 1) -> tuple[str, ...]:
        """Of a run of so many distillations, which share the rounds and timesteps of one."""
        shared = f"rollout.rounds={self.rounds // parts}", f"rollout.timesteps={self.timesteps // parts}"
        return (f"student.width={self.width}", *shared, *JUDGED)


JUDGED = ("evaluate.episodes=40", "evaluate.select_episodes=8")
TASKS = (
    Task("ppo/HalfCheetah-v3_1", 8, 16, 64_000),
    Task("dqn/MountainCar-v0_1", 1, 8, 8_000, discrete=True),
    Task("a2c/BipedalWalker-v3_1", 3, 16, 64_000),
)
PLAIN = "plain"
METHODS: dict[str, tuple[str, ...]] = {
    PLAIN: (),
    "reverse KL": ("loss.kind=reverse_kl",),
    "expected entropy": ("loss.kind=expected_entropy",),
    "mean squared error": ("loss.kind=mse",),
    "Huber": ("loss.kind=huber",),
    "temperature 2": ("loss.temperature=2",),
    "temperature 4 that falls": ("loss.temperature=4", "loss.adapt=temperature"),
    "half hard targets": ("loss.alpha=0.5",),
    "hard targets at the end": ("loss.hard_rounds=2",),
    "three temperatures, the best": ("loss.temperature=[0.5,1,2]",),
    "three first weights, the best": ("student.seeds=3",),
    "the teacher alone acts": ("rollout.beta.schedule=constant", "rollout.beta.value=1"),
    "mixture that falls (DAgger)": ("rollout.beta.schedule=linear",),
    "hints": ("aside.hints=0.1", "aside.hint_rounds={half}"),
    "the teacher's value": ("aside.value=0.1",),
    "jitter, student's input": ("augment.jitter=0.1",),
    "jitter, both": ("augment.jitter=0.1", "augment.seen_by=both"),
    "early stopping": ("data.held_out=0.25", "update.patience=3"),
    "weights of 8 bits, aware": ("compress.int8=aware",),
}
CHAINS: dict[str, tuple[str, ...]] = {
    "an assistant four times as wide": ("progressive.steps=[{wide}]",),
    "two generations": ("progressive.generations=2",),
}
"""Of two distillations each: half the rounds and half the timesteps for either."""
OF_CHOICES: dict[str, tuple[str, ...]] = {
    "Jensen-Shannon": ("loss.kind=jsd",),
    "weights by Q-gap": ("data.weighting=q_gap",),
    "weights by confidence": ("data.weighting=confidence",),
}


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """Every method on every task; no bound: what does not help says so."""
    tasks = [task for task in TASKS if not options.only or task.teacher in options.only]
    runs = [(task, name, seed) for task in tasks for name in _methods(task) for seed in range(options.seeds)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        waiting = {run: pool.submit(_retention, run[0], _methods(run[0])[run[1]], run[2], options) for run in runs}
        held = dict[tuple[Task, str, int], float]()
        for (task, name, seed), future in waiting.items():
            held[task, name, seed] = future.result()
            sys.stderr.write(f"{task.teacher} {name}, seed {seed}: {held[task, name, seed]:.3f}\n")
    parts = []
    for task in tasks:
        of_seeds = {name: [held[task, name, seed] for seed in range(options.seeds)] for name in _methods(task)}
        rows = [_row(name, _methods(task)[name], values, of_seeds[PLAIN]) for name, values in of_seeds.items()]
        parts.append(f"## {task.teacher}, `{' '.join(task.settings())}`\n\n{table(HEAD, rows)}")
    return PAGE.format(machine=described(), seeds=options.seeds, parts="\n".join(parts)), True


def _methods(task: Task) -> dict[str, tuple[str, ...]]:
    """What each row of the task changes."""
    rows = {**METHODS, **(OF_CHOICES if task.discrete else {})}
    known = {"half": task.rounds // 2, "wide": 4 * task.width}
    halves = {name: (*settings, *task.settings(2)[1:3]) for name, settings in CHAINS.items()}
    return {name: tuple(one.format(**known) for one in settings) for name, settings in {**rows, **halves}.items()}


def _retention(task: Task, extra: tuple[str, ...], seed: int, options: argparse.Namespace) -> float:
    """Retention on the report seeds of one run."""
    overrides = [*task.settings(), *extra, f"seed={seed}", f"teacher={options.teachers / task.teacher}"]
    with tempfile.TemporaryDirectory() as folder:
        run = distill(load_config(None, overrides), out=Path(folder) / "run")
    return float(run.result["retention"]["value"])


def _row(name: str, settings: tuple[str, ...], held: list[float], plain: list[float]) -> list[str]:
    return [
        name,
        " ".join(f"`{one}`" for one in settings) or "none",
        f"{np.mean(held):.3f} ({min(held):.3f} to {max(held):.3f})",
        *_gain(np.subtract(held, plain), is_plain=name == PLAIN),
    ]


def _gain(gaps: np.ndarray, *, is_plain: bool) -> tuple[str, str]:
    """The mean gap with its interval by Student's t over seeds, and what it says."""
    if is_plain or len(gaps) < 2:
        return "", ""
    half = _T.get(len(gaps), 1.96) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    low, high = gaps.mean() - half, gaps.mean() + half
    verdict = "yes" if low > 0 else ("no, it costs" if high < 0 else "not shown")
    return f"{gaps.mean():+.3f} ({low:+.3f} to {high:+.3f})", verdict


PAGE = """# The methods where plain distillation falls short

`python -m benchmarks methods --seeds {seeds} --out docs/benchmarks`: default settings but for those named, the same
number of timesteps in every row, {seeds} training seeds, 40 report episodes on seeds that chose nothing. The interval
is Student's over the seeds' differences from plain distillation with the same seed; "not shown" means that it holds 0.
With so many rows one of twenty leaves 0 by chance.

Machine: {machine}.

{parts}
"""
