"""Steps per second of policykd's own environments: the vector version of N beside the single one."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import gymnasium

import policykd_envs
from benchmarks.machine import described, table

N, REPEATS, FASTER = 256, 7, 20.0
VECTOR_STEPS, SINGLE_STEPS, ACTIONS = 500, 5000, 500
HEAD = ("environment", "single, steps/s", f"vector of {N}, steps/s", "vector / single", "bound")


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether every vector version is fast enough."""
    rows, good = [], True
    for entry in policykd_envs.ENVIRONMENTS:
        if options.only and entry.id not in options.only:
            continue
        sides = (_single(entry.id), _vector(entry.id))
        spent = [[side() for side in sides] for _ in range(REPEATS)]
        single, vector = (1 / median(column) for column in zip(*spent, strict=True))
        good = good and vector >= FASTER * single
        rows.append([entry.id, f"{single:,.0f}", f"{vector:,.0f}", f"{vector / single:.1f}", f"at least {FASTER:.0f}"])
        sys.stderr.write(f"{' | '.join(rows[-1])}\n")
    page = PAGE.format(machine=described(), table=table(HEAD, rows), n=N, repeats=REPEATS)
    return page, good


def _single(name: str) -> Callable[[], float]:
    """Steps one environment, episode after episode; gives seconds for a step."""
    env = gymnasium.make(name, disable_env_checker=True)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(ACTIONS)]
    env.reset(seed=0)

    def side() -> float:
        begin = time.process_time()
        for step in range(SINGLE_STEPS):
            _, _, terminated, truncated, _ = env.step(actions[step % ACTIONS])
            if terminated or truncated:
                env.reset()
        return (time.process_time() - begin) / SINGLE_STEPS

    return side


def _vector(name: str) -> Callable[[], float]:
    """Steps N at once; gives seconds for a step of one of them."""
    envs = gymnasium.make_vec(name, num_envs=N, vectorization_mode="vector_entry_point")
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(ACTIONS)]
    envs.reset(seed=0)

    def side() -> float:
        begin = time.process_time()
        for step in range(VECTOR_STEPS):
            envs.step(actions[step % ACTIONS])
        return (time.process_time() - begin) / (VECTOR_STEPS * N)

    return side


PAGE = """# Steps per second of the environments in the wheel

`python -m benchmarks envs --out docs/benchmarks`: random actions, drawn beforehand; whole episodes, resets too; the
single version as `gymnasium.make` gives it, without Gymnasium's checker. CPU time on one core, medians of {repeats}
alternating repeats. The bound: {n} environments at once take at least 20 times as many steps per second.

Machine: {machine}.

{table}"""
