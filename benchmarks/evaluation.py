"""Seconds of 100 judged LunarLander episodes beside stable-baselines3's `evaluate_policy` with one environment."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.collection import Progress
from benchmarks.machine import bare_step_us, described, table
from benchmarks.sb3 import ppo_of, vec_env
from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.rollout.envs import EnvSpec, teacher_spec
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher

TEACHER, EPISODES = "ppo/LunarLander-v2_1", 100
SLOW = ("a2c/BipedalWalker-v3_1", "ppo/HalfCheetah-v3_1")
LEAST = {"sync": 5.0, "envpool": 15.0}  # times faster
HEAD = ("on", "seconds, median", "mean return", "steps", "SB3's seconds / this (range)", "bound")
Timed = tuple[float, float, int]  # seconds, mean return, steps


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether the bounds of sync and envpool hold; without envpool its row says so."""
    torch.set_num_threads(1)
    teacher = load_teacher(str(options.teachers / TEACHER))
    single = teacher_spec(EnvConfig(backend="sync"), teacher.info)
    runs: dict[str, Callable[[int], Timed]] = {"SB3 evaluate_policy, n_envs=1": _peer(teacher, single.id)}
    for backend in ("sync", "async", "envpool"):
        try:
            spec = teacher_spec(EnvConfig(backend=backend), teacher.info)
        except InputError as error:
            sys.stderr.write(f"{error}\n")
            continue
        runs[backend] = _ours(teacher, spec)
    found: dict[str, list[Timed]] = {name: [] for name in runs}
    for repeat in range(options.seeds):
        for name, run in runs.items():
            found[name].append(run(repeat))
            sys.stderr.write(f"{name} {repeat}: {found[name][-1]}\n")
    rows, good = _rows(found)
    bare = bare_step_us(single, 32)
    workers = table(("teacher", "sync, s", "async, s", "sync / async (range)"), _workers(options))
    page = PAGE.format(machine=described(), seeds=options.seeds, bare=bare, table=table(HEAD, rows), workers=workers)
    return page, good


def _rows(found: dict[str, list[Timed]]) -> tuple[list[list[str]], bool]:
    slow = next(iter(found.values()))
    rows, good = [], True
    for name, timed in found.items():
        ratios = [a[0] / b[0] for a, b in zip(slow, timed, strict=True)]
        met = median(ratios) >= LEAST.get(name, 0)
        good = good and met
        bound = f"at least {LEAST[name]:g}: {'met' if met else 'missed'}" if name in LEAST else ""
        spread = f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        seconds, value, steps = (median(each[k] for each in timed) for k in range(3))
        rows.append([name, f"{seconds:.2f}", f"{value:.1f}", f"{steps:,.0f}", spread, bound])
    if "envpool" not in found:
        rows.append(["envpool", "not installed", "", "", "", "not measured"])
    return rows, good


def _workers(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for name in SLOW:
        teacher = load_teacher(str(options.teachers / name))
        one, many = (teacher_spec(EnvConfig(backend=backend), teacher.info) for backend in ("sync", "async"))
        by = [(_ours(teacher, one, 32)(k)[0], _ours(teacher, many, 32)(k)[0]) for k in range(options.seeds)]
        ratios = [a / b for a, b in by]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([name, *(f"{median(spent):.2f}" for spent in zip(*by, strict=True)), spread])
    return rows


def _ours(teacher: Teacher, spec: EnvSpec, episodes: int = EPISODES) -> Callable[[int], Timed]:
    def run(repeat: int) -> Timed:
        seeds = range(10_000 + 1000 * repeat, 10_000 + 1000 * repeat + episodes)
        begin = time.perf_counter()
        found = run_episodes(spec, policy_actor(teacher, True, 0), seeds, Progress())
        return time.perf_counter() - begin, float(found.returns.mean()), int(found.lengths.sum())

    return run


def _peer(teacher: Teacher, env_id: str) -> Callable[[int], Timed]:
    from stable_baselines3.common.evaluation import evaluate_policy

    env = vec_env(env_id, 1)
    model = ppo_of(teacher, env)

    def run(repeat: int) -> Timed:
        env.seed(10_000 + 1000 * repeat)
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = evaluate_policy(model, env, n_eval_episodes=EPISODES, return_episode_rewards=True)
        return time.perf_counter() - begin, sum(found[0]) / EPISODES, sum(found[1])

    return run


PAGE = """# The price of judging

`python -m benchmarks evaluation --seeds {seeds} --out docs/benchmarks`: 100 episodes of LunarLander by the teacher
`ppo/LunarLander-v2_1`, acting by its mode; environments made and closed included; one thread of torch; in turn, in one
process, {seeds} repeats. Each repeat has other seeds; SB3's model has the same weights. Stepping alone (32
environments, one after the other, random actions) takes {bare:.1f} µs a step here. The bounds: at least 5 times as fast
with single environments, 15 times with envpool, which is an opt-in extra with episodes of its own (docs/backends.md).

Machine: {machine}.

{table}
Where a step costs more, worker processes pay as far as cores are free: 32 episodes of the teacher.

{workers}"""
