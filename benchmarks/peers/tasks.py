"""The two races, and what is tuned: one set of knobs for every side that learns in rounds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from policykd.students.mlp import MlpStudent

Values = list[dict[str, Any]]
"""Of one knob: fields of a setting that change together."""
KEEP = 0.95  # retention to reach


@dataclass(frozen=True)
class Setting:
    """Rounds of collecting and fitting. The learning rate falls linearly to a hundredth over `rounds`."""

    n_envs: int
    n_steps: int
    updates: int
    batch: int
    learning_rate: float
    rounds: int

    def __str__(self) -> str:
        return (
            f"{self.n_envs} x {self.n_steps} steps, {self.updates} updates of {self.batch}, "
            f"rate {self.learning_rate:g}, {self.rounds} rounds"
        )

    @property
    def total(self) -> int:
        """Updates of all rounds."""
        return self.rounds * self.updates

    def rate(self, update: int) -> float:
        """Of update 0, 1, ..."""
        return self.learning_rate * (1 - 0.99 * min(update / max(self.total - 1, 1), 1.0))


@dataclass(frozen=True)
class DaggerSetting:
    """imitation's own knobs: `timesteps` a round at least, epochs over all data after each, and the rounds over which
    beta falls from 1 to 0 (1: the first only)."""

    n_envs: int
    timesteps: int
    epochs: int
    batch: int
    learning_rate: float
    rampdown: int
    rounds: int

    def __str__(self) -> str:
        return (
            f"{self.n_envs} environments, {self.timesteps} steps, {self.epochs} epochs of batches of {self.batch}, "
            f"rate {self.learning_rate:g}, beta to 0 in {self.rampdown}"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A student as it is after `seconds` on the clock, `cpu` of them computing, and what it has cost."""

    student: MlpStudent
    seconds: float
    cpu: float
    timesteps: int
    updates: int


Race = Iterator[Checkpoint]
"""One side: a checkpoint after each round. What happens between two of them is on its clock, and nothing else."""


@dataclass(frozen=True)
class Task:
    """A teacher, the student's hidden width, and what the search has chosen for each side."""

    name: str
    teacher: str
    old_env: str  # what imitation's gymnasium calls the environment
    width: int
    ours: Setting
    plain: Setting
    dagger: DaggerSetting
    first: Setting  # where the search begins, for ours and the plain script
    dagger_first: DaggerSetting  # and for imitation
    passes: int  # over the knobs


_LANDER = Setting(n_envs=8, n_steps=400, updates=200, batch=256, learning_rate=1e-2, rounds=10)
_CHEETAH = Setting(n_envs=4, n_steps=1000, updates=1000, batch=256, learning_rate=1e-2, rounds=12)
_LANDER_DAGGER = DaggerSetting(n_envs=8, timesteps=2000, epochs=8, batch=64, learning_rate=1e-2, rampdown=1, rounds=20)
_CHEETAH_DAGGER = DaggerSetting(n_envs=4, timesteps=4000, epochs=8, batch=64, learning_rate=1e-3, rampdown=1, rounds=20)
TASKS = (
    Task(
        "LunarLander",
        "ppo/LunarLander-v2_1",
        "LunarLander-v2",
        32,
        ours=Setting(n_envs=4, n_steps=400, updates=50, batch=64, learning_rate=4e-2, rounds=10),
        plain=Setting(n_envs=8, n_steps=250, updates=100, batch=64, learning_rate=4e-2, rounds=10),
        dagger=DaggerSetting(n_envs=4, timesteps=1000, epochs=8, batch=64, learning_rate=1e-2, rampdown=1, rounds=20),
        first=_LANDER,
        dagger_first=_LANDER_DAGGER,
        passes=2,
    ),
    Task(
        "HalfCheetah",
        "ppo/HalfCheetah-v3_1",
        "HalfCheetah-v4",
        64,
        ours=Setting(n_envs=4, n_steps=500, updates=250, batch=256, learning_rate=1e-2, rounds=12),
        plain=Setting(n_envs=4, n_steps=500, updates=1000, batch=128, learning_rate=1e-2, rounds=12),
        dagger=DaggerSetting(n_envs=4, timesteps=4000, epochs=16, batch=64, learning_rate=3e-3, rampdown=1, rounds=20),
        first=_CHEETAH,
        dagger_first=_CHEETAH_DAGGER,
        passes=1,
    ),
)


def _knobs(shapes: list[tuple[int, int]], updates: list[int], batches: list[int]) -> list[Values]:
    """In the order in which they are tried."""
    return [
        [{"n_envs": n, "n_steps": steps} for n, steps in shapes],
        [{"updates": n} for n in updates],
        [{"learning_rate": rate} for rate in (3e-3, 1e-2, 2e-2, 4e-2)],
        [{"batch": n} for n in batches],
    ]


# Of both sides that learn in rounds of ours; rounds have about the same number of steps.
KNOBS = {
    "LunarLander": _knobs([(2, 600), (4, 400), (8, 250), (8, 300), (16, 200)], [50, 100, 400], [64, 128, 512]),
    "HalfCheetah": _knobs([(2, 1000), (4, 500), (8, 500), (16, 250), (8, 1000)], [250, 500, 2000], [128, 512]),
}
DAGGER_KNOBS: dict[str, list[Values]] = {
    "LunarLander": [
        [{"n_envs": 1, "timesteps": 500}, {"n_envs": 4, "timesteps": 500}, {"n_envs": 4, "timesteps": 1000}],
        [{"epochs": 2}, {"epochs": 4}, {"epochs": 16}],
        [{"learning_rate": 3e-3}, {"learning_rate": 2e-2}, {"learning_rate": 1e-3}],
        [{"batch": 32}, {"batch": 128}],
        [{"rampdown": 15}],
    ],
    "HalfCheetah": [
        [{"n_envs": 2, "timesteps": 2000}, {"n_envs": 8, "timesteps": 8000}],
        [{"epochs": 4}, {"epochs": 16}],
        [{"learning_rate": 3e-3}],
        [{"batch": 32}, {"batch": 128}],
        [{"rampdown": 15}],
    ],
}


class Stopwatch:
    """Seconds on the clock and seconds of the processor, which a busy machine does not stretch."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        self.start()

    def start(self) -> None:
        """Goes on."""
        self._begin = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stands still until `start`."""
        self.seconds += time.perf_counter() - self._begin[0]
        self.cpu += time.process_time() - self._begin[1]


def smallest(setting: Setting) -> Setting:
    """The same in a fraction of a second, to warm up with."""
    return replace(setting, n_envs=2, n_steps=40, updates=20, rounds=2)
