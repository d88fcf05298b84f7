"""The races: alternating repeats of every side, beside bare stepping, and the page."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import bare_step_us, described, table
from benchmarks.peers.dagger import Dagger, environment
from benchmarks.peers.judging import CONFIRM, EPISODES, HOPELESS, SCREEN, SELECT, Finish, Judge
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain import Plain
from benchmarks.peers.search import Racer, as_table, descend
from benchmarks.peers.tasks import DAGGER_KNOBS, KEEP, KNOBS, TASKS, Task, smallest

LEAST = {"plain script": 3.0, "imitation's DAgger": 6.0}
OURS, PLAIN, DAGGER = "policykd", *LEAST
_LIMIT = 20.0  # times what ours took in the same repeat: a race that takes longer has lost
SEARCH_EPISODES = SCREEN
_SEARCHED = Path(__file__).with_name("search.md")


@dataclass(frozen=True)
class Sides:
    """Everybody who races for one task; `settings` of each, and where its search begins with which knobs."""

    task: Task
    judge: Judge
    races: dict[str, Racer]
    bare_us: float

    @property
    def settings(self) -> dict[str, Any]:
        """What the search has chosen."""
        return {OURS: self.task.ours, PLAIN: self.task.plain, DAGGER: self.task.dagger}


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether ours is as many times faster as it must be; with --search, the search first."""
    torch.set_num_threads(1)
    if options.search:
        _SEARCHED.write_text(_searched(options), "utf-8")
    rows, good = [], True
    for task in TASKS:
        with _opened(task, options) as sides:
            found = _alternating(sides, options.seeds)
        lines, met = _rows(sides, found)
        rows += lines
        good = good and met and DAGGER in sides.races
    searched = _SEARCHED.read_text("utf-8") if _SEARCHED.is_file() else ""
    page = PAGE.format(
        machine=described(),
        table=table(HEAD, rows),
        searched=searched,
        seeds=options.seeds,
        keep=100 * KEEP,
        limit=_LIMIT,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
        episodes=EPISODES,
        screen=SCREEN,
        tried=SEARCH_EPISODES,
        hopeless=100 * HOPELESS,
        select=f"{SELECT.start:,}",
        confirm=f"{CONFIRM.start:,}",
    )
    return page, good


@contextmanager
def _opened(task: Task, options: argparse.Namespace, episodes: int = EPISODES) -> Iterator[Sides]:
    """Teachers loaded, everybody warm: imports and first calls are on nobody's clock."""
    with ExitStack() as stack:
        ours = stack.enter_context(closing(Ours(task, options.teachers)))
        plain = Plain(ours.teacher, ours.spec, task.width)
        races: dict[str, Racer] = {OURS: ours.race, PLAIN: plain.race}
        for race in (ours.race, plain.race):
            list(race(smallest(task.first), 0))
        try:
            python = environment(options.venvs)
        except (subprocess.CalledProcessError, OSError) as error:
            sys.stderr.write(f"imitation is left out: {error}\n")
        else:
            dagger = stack.enter_context(closing(Dagger(python, ours.teacher, task)))
            list(dagger.race(replace(task.dagger, timesteps=300, epochs=1, rounds=1), 0))
            races[DAGGER] = dagger.race
        yield Sides(task, Judge(ours.spec, ours.teacher, episodes), races, bare_step_us(ours.spec, task.ours.n_envs))


def _alternating(sides: Sides, repeats: int) -> dict[str, list[Finish]]:
    """One race of each side in every repeat; ours begins, since the others are stopped when they have lost."""
    found: dict[str, list[Finish]] = {name: [] for name in sides.races}
    for seed in range(repeats):
        limit = float("inf")
        for name, race in sides.races.items():
            finish = sides.judge.finish(race(sides.settings[name], seed), limit)
            found[name].append(finish)
            if name == OURS:
                limit = _LIMIT * finish.seconds
            sys.stderr.write(f"{sides.task.name} {seed} {name}: {finish.seconds:.2f} s, {finish.confirm:.3f}\n")
    return found


def _rows(sides: Sides, found: dict[str, list[Finish]]) -> tuple[list[list[str]], bool]:
    rows, good = [], True
    for name, finishes in found.items():
        spent = [finish.seconds for finish in finishes]
        pairs = zip(spent, (finish.seconds for finish in found[OURS]), strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        good = good and all(finish.reached for finish in found[OURS])
        good = good and median(ratios) >= LEAST.get(name, 0.0)
        cpu = median(finish.cpu for finish in finishes)
        steps = median(finish.checkpoint.timesteps for finish in finishes)
        rows.append(
            [
                sides.task.name,
                name,
                f"{_seconds(median(spent))} ({_seconds(min(spent))} to {_seconds(max(spent))})",
                _ratios(ratios, name),
                f"{_seconds(cpu)} ({cpu / median(finish.cpu for finish in found[OURS]):.1f})",
                f"{steps:,.0f}",
                f"{median(finish.checkpoint.updates for finish in finishes):,.0f}",
                f"{steps * sides.bare_us / 1e6:.2f}",
                f"{median(finish.checks for finish in finishes):.0f}",
                f"{median(finish.confirm for finish in finishes):.3f}",
            ]
        )
    return rows, good


def _ratios(ratios: list[float], name: str) -> str:
    if name == OURS:
        return ""
    verdict = "met" if median(ratios) >= LEAST[name] else "missed"
    shown = [f"{value:.1f}" if value < float("inf") else f"> {_LIMIT:.0f}" for value in sorted(ratios)]
    return f"{shown[len(shown) // 2]} ({shown[0]} to {shown[-1]}), at least {LEAST[name]:.0f}: {verdict}"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < float("inf") else "not"


def _searched(options: argparse.Namespace) -> str:
    """The tables of every task and side; the winners are written into tasks.py by hand."""
    parts = []
    for task in TASKS:
        with _opened(task, options, SEARCH_EPISODES) as sides:
            for name, race in sides.races.items():
                start, knobs = (task.dagger_first, DAGGER_KNOBS) if name == DAGGER else (task.first, KNOBS)
                sys.stderr.write(f"{task.name}, {name}\n")
                tries = descend(start, knobs[task.name] * task.passes, race, sides.judge, options.seeds)
                parts.append(f"### {task.name}, {name}\n\n{as_table(tries)}")
    return "\n".join(parts)


HEAD = (
    *("teacher", "side", "seconds, median (range)", "theirs / ours, median (range)"),
    *("of the processor, s (theirs / ours)", "timesteps", "updates"),
    *("bare stepping of these, s", "checks", "retention, confirmed"),
)

PAGE = """# Beside a plain script and imitation

`python -m benchmarks peers --seeds {seeds} --out docs/benchmarks`: seconds from a loaded teacher to a student that
holds {keep:.0f} % of its return (32x32 tanh for LunarLander, 64x64 for HalfCheetah), {seeds} repeats, the sides in
turn, one thread each. Retention is (student - random) / (teacher - random).

- **policykd**: its own rounds, with checkpoints and curves on disk as in every run.
- **plain script** (`benchmarks/peers/plain.py`): stable-baselines3's `predict` for the teacher's actions,
  `policy.get_distribution` for its labels, one call a round, `DummyVecEnv` (without a render mode, which
  `make_vec_env` sets and which makes LunarLander nine times slower), an `nn.Sequential`, KL, eager `torch.optim.Adam`,
  student-driven rounds on all data so far, and the same schedule of the learning rate as ours.
- **imitation's DAgger** 1.0.1 in an environment of its own with gymnasium 0.29 and stable-baselines3 2.2, which the
  benchmark makes; the teacher's and the students' weights travel as plain arrays. Its rollouts for the log are off.

The clock runs while a side makes its environments, collects, labels and learns. Imports, first calls, loading the
teacher, and judging count for nobody. After each round the student is judged, in the same evaluator, on the same
{episodes} seeds (from {select}; only {screen} of them where these give less than {hopeless:.0f} %). It has arrived
when it holds {keep:.0f} % there and on {episodes} other seeds (from {confirm}); else its race goes on, up to
{limit:.0f} times ours. Rounds have a few thousand steps on every side. Bare stepping is as many steps with random
actions and nothing else. Seconds of the processor are those in which the side computed: a busy machine stretches the
others. The bounds: a median ratio of at least 3 to the plain script and 6 to imitation.

Machine: {machine}. Load average at the end: {load:.1f}.

{table}
## The search

`--search` tries, for each side, one knob after the other: environments and steps of a round, updates a round, learning
rate, batch; then the best four meet on other seeds, all judged on {tried} episodes each time. Ours and the plain script
start alike and are offered the same values; imitation has knobs of its own. "not": {keep:.0f} % was not reached in most
races.

{searched}"""
