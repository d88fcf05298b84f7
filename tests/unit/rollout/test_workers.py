"""Fails when worker processes give another result than environments stepped one after the other, or when a worker that
dies, hangs or raises leaves a process behind, blocks, or says more or less than one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policykd import Config, distill
from policykd.evaluation.episodes import policy_actor, random_actor, run_episodes
from policykd.learn.setup.sources import policy_env
from policykd.rollout.collect import Shard, collect, label
from policykd.rollout.envs import EnvSpec, factory_spec, teacher_spec
from policykd.rollout.vecenv import BatchEnv, SyncEnvs
from policykd.rollout.workers import AsyncEnvs
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError, NumericsError
from policykd.spine.seeding import SeedKey
from policykd.teachers.load import load_teacher
from tests.house.rules import ROOT
from tests.support.core import Quiet, counting_action, student
from tests.support.workers import Counting, Dying, Hanging, HangingAtReset, Long, Masked, NotFinite, Raising

ASYNC = EnvConfig(backend="async", step_timeout=30.0)


def next_seeds(n_envs: int, episodes: int) -> Any:
    counts = [0] * n_envs

    def next_seed(slot: int) -> int | None:
        counts[slot] += 1
        return None if counts[slot] > episodes else 100 * slot + 7 * counts[slot]

    return next_seed


def gone(pids: list[int]) -> bool:
    def running(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    until = time.monotonic() + 10
    while any(map(running, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(running, pids))


def pids_of(env: AsyncEnvs) -> list[int]:
    return [process.pid for process in env._processes]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("kind", [Counting, Masked])
def test_every_step_equals_sync(kind: Any, workers: int) -> None:
    spec = replace(factory_spec(kind, ASYNC), masked=kind is Masked)
    n = 5
    there, here = AsyncEnvs(spec, n, next_seeds(n, 2), workers), SyncEnvs(spec, n, next_seeds(n, 2))
    pids = pids_of(there)
    assert len(pids) == workers
    seeds = [3, 4, 5, 6, 7]
    seen = there.reset(seeds)
    np.testing.assert_array_equal(seen, here.reset(seeds))
    ended = 0
    for _ in range(25):
        np.testing.assert_array_equal(there.mask, here.mask)
        actions = counting_action(seen)
        a, b = there.step(actions), here.step(actions)
        for name in ("observation", "reward", "done", "acting", "success", "mask"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        seen, ended = a.observation, ended + int(a.done.sum())
    assert ended == 3 * n and not a.acting.any()
    there.close()
    assert gone(pids)


def test_collecting_and_judging_equal_sync() -> None:
    teacher = load_teacher("builtin:lunarlander")
    found = []
    for backend in ("sync", "async"):
        spec = teacher_spec(EnvConfig(backend=backend), teacher.info)
        assert spec.backend == backend
        shard = Shard(SeedKey(0, "collect"), 3, 150, 1.0, RolloutConfig(kernel="numpy"))
        rollout = collect(shard, spec, teacher, None, Quiet())
        label(rollout, teacher, Quiet())
        episodes = run_episodes(spec, policy_actor(teacher, True, 0), range(40, 46), Quiet(), keep_visited=400)
        random = run_episodes(spec, random_actor(teacher.action_space, 3), range(4), Quiet())
        found.append((rollout, episodes, random))
    (a, by_a, random_a), (b, by_b, random_b) = found
    for name in ("observation", "params", "acting", "start", "actor", "returns", "lengths", "slot"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for left, right in ((by_a, by_b), (random_a, random_b)):
        for name in ("returns", "lengths", "success", "visited"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def drive(env: BatchEnv, seeds: list[int] | None) -> None:
    if seeds is not None:
        env.reset(seeds)
    for _ in range(100):
        env.step(np.zeros(env.n_envs, int))


def broken(kind: Any, error: type[Exception], timeout: float = 30.0, n: int = 4) -> str:
    """The one line that comes when an environment of this kind goes wrong, after which no process is left."""
    env = AsyncEnvs(factory_spec(kind, EnvConfig(backend="async", step_timeout=timeout)), n, lambda _: 5, 2)
    pids = pids_of(env)
    begin = time.monotonic()
    with pytest.raises(error) as caught:
        drive(env, [1, 2, 3, 4])
    assert time.monotonic() - begin < timeout + 20
    assert gone(pids)
    env.close()  # again, as every `finally` does
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_worker_that_raises() -> None:
    line = broken(Raising, InputError)
    assert "seed 1" in line and "RuntimeError: the gearbox broke" in line
    sync = SyncEnvs(factory_spec(Raising), 4, lambda _: 5)
    with pytest.raises(InputError) as caught:
        drive(sync, [1, 2, 3, 4])
    assert str(caught.value) == line


def test_a_worker_that_gives_no_number() -> None:
    assert broken(NotFinite, NumericsError).startswith("observation is not finite")


def test_a_worker_that_hangs() -> None:
    assert "no answer within 1 s while stepping" in (line := broken(Hanging, InputError, 1.0))
    assert "env.step_timeout" in line and "seeds 1, 2" in line
    assert "no answer within 1 s while resetting" in broken(HangingAtReset, InputError, 1.0)


def test_a_worker_that_ends_itself() -> None:
    assert "ended with exit code 7 while stepping" in broken(Dying, InputError)


def test_a_worker_that_is_killed() -> None:
    env = AsyncEnvs(factory_spec(Long, ASYNC), 4, lambda _: 5, 2)
    env.reset([1, 2, 3, 4])
    pids = pids_of(env)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(InputError, match=r"^env Long: .*ended by signal 9 while stepping: ") as caught:
        drive(env, None)
    assert "\n" not in str(caught.value) and "seeds 3, 4" in str(caught.value)
    assert gone(pids)


def test_what_cannot_be_sent_is_refused_in_one_line() -> None:
    local = lambda: Long()  # noqa: E731, PLW0108
    with pytest.raises(InputError, match=r"^env .*cannot be sent to a worker process .* or use env.backend=sync$"):
        AsyncEnvs(factory_spec(local, ASYNC), 2, lambda _: 5)


def test_what_cannot_be_made_is_said_as_sync_says_it() -> None:
    spec = EnvSpec("CartPole-v1", kwargs={"colour": "red"}, backend="async")
    with pytest.raises(InputError, match=r"^env CartPole-v1: cannot be made"):
        AsyncEnvs(spec, 2, lambda _: 5)


def test_workers_end_with_their_parent() -> None:
    code = (
        "import os, signal\n"
        "from policykd.rollout.envs import EnvSpec\n"
        "from policykd.rollout.workers import AsyncEnvs\n"
        "env = AsyncEnvs(EnvSpec('CartPole-v1'), 4, lambda _: 5, 2)\n"
        "env.reset(range(4))\n"
        "print(*[process.pid for process in env._processes], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2 and done.returncode == -signal.SIGKILL and gone(pids)


def test_a_run_in_workers_is_the_run_without(tmp_path: Any) -> None:
    results = []
    for backend in ("sync", "async"):
        config = Config(
            env={"backend": backend},
            rollout={"rounds": 2, "timesteps": 800, "n_envs": 4},
            update={"n_updates": 20},
            evaluate={"episodes": 5, "select_episodes": 4},
        )
        run = distill(config, out=tmp_path / backend)
        assert run.result["backend"] == backend
        results.append({name: run.result[name] for name in ("student", "teacher", "random", "agreement", "timesteps")})
        results[-1]["student"] = {**results[-1]["student"], "bytes": None}
    assert results[0] == results[1]


def test_a_student_is_judged_on_the_backend_that_the_caller_names() -> None:
    config = {"env": {"id": "CartPole-v1", "backend": "native"}}
    made = replace(student("categorical"), provenance={"config": config})
    assert policy_env(made, "it", EnvConfig()).backend == "native"
    spec = policy_env(made, "it", EnvConfig(backend="async", step_timeout=3.0))
    assert (spec.backend, spec.step_timeout) == ("async", 3.0)
