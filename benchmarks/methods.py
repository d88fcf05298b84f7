"""Every method of learning where plain distillation does not reach the ceiling: the same timesteps, student and seeds.

Plain distillation stands at 0.5 to 0.9 of the teacher's return there, because the student is too small or has seen too
little. Each row changes one method and nothing else; rows are compared seed by seed with plain distillation's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import described, table
from policykd import distill, load_config

HEAD = ("method", "settings", "retention, mean of seeds (lowest to highest)", "less plain's, 95 % interval", "helps")
_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # Student's, 97.5 %, n - 1


@dataclass(frozen=True)
class Task:
    """A teacher, and what makes its student fall short: settings that all rows share."""

    teacher: str
    settings: tuple[str, ...]
    discrete: bool = False


TASKS = (
    Task("ppo/HalfCheetah-v3_1", ("student.width=8",)),
    Task("a2c/BipedalWalker-v3_1", ("student.width=4",)),
    Task("ppo/LunarLander-v2_1", ("student.width=2", "rollout.rounds=4", "rollout.timesteps=6000"), discrete=True),
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
    "the teacher alone acts": ("rollout.beta.schedule=constant", "rollout.beta.value=1"),
    "mixture that falls (DAgger)": ("rollout.beta.schedule=linear",),
    "jitter, student's input": ("augment.jitter=0.1",),
    "jitter, both": ("augment.jitter=0.1", "augment.seen_by=both"),
    "early stopping": ("data.held_out=0.25", "update.patience=3"),
}
OF_CHOICES: dict[str, tuple[str, ...]] = {
    "Jensen-Shannon": ("loss.kind=jsd",),
    "weights by Q-gap": ("data.weighting=q_gap",),
    "weights by confidence": ("data.weighting=confidence",),
}


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """Every method on every task; no bound: what does not help says so."""
    parts = []
    for task in TASKS:
        if options.only and task.teacher not in options.only:
            continue
        held = {name: _held(task, extra, options) for name, extra in _methods(task).items()}
        plain = held[PLAIN]
        rows = [_row(name, _methods(task)[name], values, plain) for name, values in held.items()]
        where = f"## {task.teacher}, `{' '.join(task.settings)}`\n\n"
        parts.append(where + table(HEAD, rows))
    return PAGE.format(machine=described(), seeds=options.seeds, parts="\n\n".join(parts)), True


def _methods(task: Task) -> dict[str, tuple[str, ...]]:
    return {**METHODS, **(OF_CHOICES if task.discrete else {})}


def _held(task: Task, extra: tuple[str, ...], options: argparse.Namespace) -> list[float]:
    """Retention on the report seeds, one run a training seed."""
    found = []
    for seed in range(options.seeds):
        overrides = [*task.settings, *extra, f"seed={seed}", f"teacher={options.teachers / task.teacher}"]
        with tempfile.TemporaryDirectory() as folder:
            run = distill(load_config(None, overrides), out=Path(folder) / "run")
        found.append(float(run.result["retention"]["value"]))
        sys.stderr.write(f"{task.teacher} {' '.join(extra) or PLAIN} seed {seed}: {found[-1]:.3f}\n")
    return found


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
number of timesteps in every row, {seeds} training seeds, 100 report episodes on seeds that chose nothing. The interval
is Student's over the seeds' differences from plain distillation with the same seed; "not shown" means that it holds 0.
With so many rows one of twenty leaves 0 by chance.

Machine: {machine}.

{parts}
"""
