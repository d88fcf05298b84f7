"""What collecting (step, label, store) costs beside stepping alone, and beside stable-baselines3's `predict` loop."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.machine import described, table
from benchmarks.sb3 import ppo_of, vec_env
from policykd import Config, distill
from policykd.data.dataset import Dataset
from policykd.rollout.collect import Rollout, Shard, collect, label
from policykd.rollout.envs import EnvSpec, env_spec
from policykd.rollout.kernels import Members
from policykd.rollout.lean import lean_driver
from policykd.rollout.vecenv import make_batch
from policykd.spine.config.load import load_config
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.seeding import SeedKey
from policykd.spine.stop import StopFlag
from policykd.spine.tracker import NullTracker
from policykd.spine.types import Array
from policykd.students.family import Family
from policykd.students.mlp import MlpStudent
from policykd.students.spec import members_of
from policykd.students.view import View
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher

TEACHERS = ("ppo/LunarLander-v2_1", "ppo/HalfCheetah-v3_1")
MOST = 1.15  # of stepping alone
CARTPOLE, ENVS, STEPS, FASTER = "ppo/CartPole-v1_1", 64, 500, 6.0


class Progress:
    """What a run's own progress costs: a flag that is asked, a tracker that is told."""

    def __init__(self) -> None:
        self._stop, self._tracker = StopFlag(), NullTracker()

    def check(self) -> None:
        """As `Work`."""
        self._stop.check()

    def advance(self, n: int = 1) -> None:
        """As `Work`."""
        self._tracker.advance(n)


@dataclass(frozen=True)
class Case:
    """A default run's collection: a teacher, its student as the family of one, the environment and the shard's size."""

    teacher: Teacher
    members: Members
    spec: EnvSpec
    config: Config

    def shard(self, beta: float, repeat: int) -> Shard:
        """Of the resolved size; beta 1 is the teacher's round, 0 a student's."""
        rollout = self.config.rollout
        assert isinstance(rollout.n_envs, int) and isinstance(rollout.n_steps, int)
        return Shard(SeedKey(0, "collect", repeat), rollout.n_envs, rollout.n_steps, beta, rollout)


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether both bounds hold."""
    torch.set_num_threads(1)
    rows, good = [], True
    for name in options.only or TEACHERS:
        row, ratio = _against_stepping(name, options)
        rows.append(row)
        good = good and ratio <= MOST
    ours, theirs = _cartpole(options)
    faster = median(a / b for a, b in zip(ours, theirs, strict=True))
    rates = [f"{median(ours) / 1e3:.0f}k", f"{median(theirs) / 1e3:.0f}k", f"{faster:.1f}"]
    head = ["ours, steps/s", "SB3's predict loop, steps/s", "ratio"]
    page = PAGE.format(machine=described(), seeds=options.seeds, table=table(HEAD, rows), peer=table(head, [rates]))
    return page, good and faster >= FASTER


def _against_stepping(name: str, options: argparse.Namespace) -> tuple[list[str], float]:
    case = _case(options.teachers / name)
    times: dict[float, list[tuple[float, float]]] = {0.0: [], 1.0: []}
    for repeat in range(options.seeds + 1):  # the first one warms up
        for beta, pairs in times.items():
            shard = case.shard(beta, repeat)
            spent, rollout = _collected(case, shard)
            pairs.append((spent, _stepped(case, shard, _actions(case, shard, rollout))))
        sys.stderr.write(f"{name} {repeat}: {times[0.0][-1]} {times[1.0][-1]}\n")
    rounds = case.config.rollout.rounds
    by_student, by_teacher = ([a / b for a, b in times[beta][1:]] for beta in (0.0, 1.0))
    whole = [
        (t[0] + (rounds - 1) * s[0]) / (t[1] + (rounds - 1) * s[1])
        for s, t in zip(times[0.0][1:], times[1.0][1:], strict=True)
    ]
    shard = case.shard(0.0, 0)
    bare = 1e6 * median(b for _, b in times[0.0][1:]) / (shard.n_envs * shard.n_steps)
    row = [name, case.spec.backend, str(shard.n_envs), str(shard.n_steps), f"{bare:.1f}"]
    return [*row, *(_spread(ratios) for ratios in (by_student, by_teacher, whole))], median(whole)


def _case(source: Path) -> Case:
    """A default run, whose student then collects."""
    with tempfile.TemporaryDirectory() as folder:
        run = distill(Config(teacher=str(source)), out=Path(folder) / "run")
        config = load_config(str(run.folder / "config.yaml"))
    teacher, student = load_teacher(str(source)), run.student
    assert isinstance(student, MlpStudent)
    family = Family(
        members_of(config.student), teacher.packing.n_features, teacher.distribution, activation=student.activation
    )
    for k, (weight, bias) in enumerate(student.layers):
        family.groups[0].weights[k][0].copy_(weight)
        family.groups[0].biases[k][0, 0].copy_(bias)
    family.log_std.copy_(student.log_std.view(family.log_std.shape))
    members = Members(family, student.normaliser, View.of(None, teacher.observation_space, teacher.packing))
    return Case(teacher, members, env_spec(config.env, teacher.info.env_id), config)


def _collected(case: Case, shard: Shard) -> tuple[float, Rollout]:
    """CPU seconds of step + label + store, environments made and closed included; and what was seen."""
    data = Dataset(case.teacher.packing.n_features, case.teacher.distribution.n_params, 100_000, "cpu")
    progress = Progress()
    begin = time.process_time()
    rollout = collect(shard, case.spec, case.teacher, case.members, progress)
    params = label(rollout, case.teacher, progress)
    keep = rollout.acting.reshape(-1)
    seen = case.teacher.packing.features(rollout.observation.reshape(len(keep), -1)[keep])
    labels = torch.from_numpy(params.reshape(len(keep), -1)[keep])
    data.append(case.members.normaliser.apply(torch.from_numpy(seen)), labels)
    return time.process_time() - begin, rollout


def _actions(case: Case, shard: Shard, rollout: Rollout) -> list[Array]:
    """The actions of the shard once more, which are a function of its key and of what was seen."""
    driver = lean_driver(shard, case.teacher, case.members)
    assert driver is not None
    return [driver.decide(seen)[0] for seen in rollout.observation]


def _stepped(case: Case, shard: Shard, actions: list[Array]) -> float:
    """CPU seconds of the same environments, seeds and actions, and nothing else."""
    counts = [0] * shard.n_envs

    def next_seed(slot: int) -> int:
        counts[slot] += 1
        return shard.key.episode_seed(slot, counts[slot])

    begin = time.process_time()
    env = make_batch(case.spec, shard.n_envs, next_seed)
    env.reset([shard.key.episode_seed(slot, 0) for slot in range(shard.n_envs)])
    for action in actions:
        env.step(action)
    env.close()
    return time.process_time() - begin


def _cartpole(options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Steps per second of both, in turn: the teacher acts by sampling; ours labels too."""
    teacher = load_teacher(str(options.teachers / CARTPOLE))
    config = RolloutConfig(kernel="numpy")
    spec = EnvSpec("CartPole-v1", backend="native")
    env = vec_env("CartPole-v1", ENVS)
    model = ppo_of(teacher, env)

    def ours(repeat: int) -> None:
        rollout = collect(
            Shard(SeedKey(0, "collect", repeat), ENVS, STEPS, 1.0, config), spec, teacher, None, Progress()
        )
        label(rollout, teacher, Progress())

    def theirs(repeat: int) -> None:
        env.seed(repeat)
        seen = env.reset()
        for _ in range(STEPS):
            seen = env.step(model.predict(seen, deterministic=False)[0])[0]

    pairs = [(_rate(ours, repeat), _rate(theirs, repeat)) for repeat in range(options.seeds + 1)][1:]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _rate(run: Callable[[int], None], repeat: int) -> float:
    begin = time.process_time()
    run(repeat)
    return ENVS * STEPS / (time.process_time() - begin)


def _spread(ratios: list[float]) -> str:
    return f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


HEAD = (
    *("teacher", "backend", "n_envs", "n_steps", "stepping alone, µs a step"),
    *("student's round / stepping", "teacher's round / stepping", "whole run / stepping"),
)
PAGE = """# The price of collecting

`python -m benchmarks collection --seeds {seeds} --out docs/benchmarks`: one shard of a default run (step, label, store)
with its own student, against stepping alone: environments made, reset and stepped on the same backend with the same
seeds and actions, and nothing else. In turn, in one process, {seeds} repeats after one that warms up; median, lowest
and highest ratio. All runs on one thread, and its CPU time is counted: other work on the machine takes turns with it,
and disturbs it only through what processes share (caches, clock). A run has one round of the teacher's and fifteen of
the student's. The checkpoint of a round (one write and two fsyncs) is not in it. The bound: the whole run at most 1.15.

Machine: {machine}.

{table}
CartPole's native vector environment with 64 environments, 500 steps, the teacher acting by sampling: collecting with
labels, against `model.predict` and `step` on stable-baselines3's DummyVecEnv with the same weights, without labels. The
bound: at least 6 times as many steps per second.

{peer}"""
