"""Where and with what a figure was measured, and the calibration that goes beside it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from policykd.rollout.envs import EnvSpec
from policykd.rollout.vecenv import make_batch
from policykd.spine.seeding import SeedKey

_PACKAGES = ("torch", "gymnasium", "stable-baselines3", "numpy", "mujoco")


def described() -> str:
    """One line: processor, cores, Python and package versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def processor() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def bare_step_us(spec: EnvSpec, n_envs: int, seconds: float = 2.0) -> float:
    """Microseconds of one environment step with random actions, drawn beforehand, and nothing else."""
    key = SeedKey(0, "random")
    episode = iter(range(1, 10_000_000))
    env = make_batch(spec, n_envs, lambda slot: key.episode_seed(slot, next(episode)))
    env.action_space.seed(0)
    actions = [np.stack([np.asarray(env.action_space.sample()) for _ in range(n_envs)]) for _ in range(300)]
    env.reset([key.episode_seed(slot, 0) for slot in range(n_envs)])
    begin, steps, acting = time.perf_counter(), 0, np.ones(n_envs, np.bool_)
    while time.perf_counter() - begin < seconds:
        for action in actions:
            steps += int(acting.sum())
            acting = env.step(action).acting
    spent = time.perf_counter() - begin
    env.close()
    return 1e6 * spent / steps


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
