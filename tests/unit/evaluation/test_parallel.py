"""Episodes on all cores are those of one core, in the order of their seeds, whatever becomes of the helpers. They are
real processes here, forced, since such short work would not start any."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from policykd.evaluation import parallel
from policykd.evaluation.parallel import Job, Player, dismiss, play
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.stop import StopFlag
from policykd.teachers.load import load_teacher
from tests.house.rules import ROOT
from tests.support.core import Counting, Quiet

CARTPOLE = EnvSpec("CartPole-v1")


@pytest.fixture(scope="module", autouse=True)
def _no_helpers_afterwards():
    yield
    dismiss()


@pytest.fixture
def helpers(monkeypatch):
    """Two helpers from the second block on, on any machine."""
    monkeypatch.setattr(parallel, "_WORTH", -1.0)
    monkeypatch.setattr(parallel, "_WAITING", -1.0)
    monkeypatch.setattr(parallel, "_helpers", lambda: 2)
    monkeypatch.setattr(parallel, "_BLOCK", 4)


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(parallel, "_BLOCK", 4)
    monkeypatch.setattr(parallel, "_helpers", lambda: 0)


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("builtin:cartpole", env_id="CartPole-v1")


def jobs(teacher, deterministic=True):
    space = teacher.action_space
    return [
        Job(Player(teacher, space, deterministic, 7), range(100, 112), 50),
        Job(Player(None, space, True, 9), range(40, 61)),
    ]


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for name in ("returns", "lengths", "success", "visited"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def children():
    return [p for p in mp.active_children() if p.is_alive()]


@pytest.mark.parametrize("deterministic", [True, False])
def test_helpers_change_nothing(teacher, monkeypatch, deterministic):
    monkeypatch.setattr(parallel, "_BLOCK", 4)
    quiet = Quiet()
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "_helpers", lambda: 0)
        here = play(CARTPOLE, jobs(teacher, deterministic), quiet)
    assert quiet.done == 33
    sent = []
    original = parallel.ProcessPoolExecutor.submit
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "_WORTH", -1.0)
        patch.setattr(parallel, "_WAITING", -1.0)
        patch.setattr(parallel, "_helpers", lambda: 2)
        patch.setattr(parallel.ProcessPoolExecutor, "submit", lambda *a: sent.append(a) or original(*a))
        there = play(CARTPOLE, jobs(teacher, deterministic), quiet)
    assert quiet.done == 66
    assert sent, "no helper had anything to do"
    same(here, there)
    assert [len(e.returns) for e in here] == [12, 21]


def test_episodes_come_in_the_order_of_their_seeds(helpers):
    spec = factory_spec(Counting)
    (found,) = play(spec, [Job(Player(None, Counting.action_space, True, 0), range(3, 30))], Quiet())
    from tests.support.core import episode_length

    assert found.lengths.tolist() == [episode_length(seed) for seed in range(3, 30)]


def test_an_environment_that_only_this_process_knows_is_played_here(helpers, monkeypatch):
    class Own(Counting):
        pass

    job = Job(Player(None, Own.action_space, True, 0), range(10))
    (local,) = play(factory_spec(Own), [job], Quiet())
    monkeypatch.setattr(parallel, "_helpers", lambda: 0)
    same([local], play(factory_spec(Counting), [job], Quiet()))
    gym.register("policykd-test/OnlyHere-v0", Counting, disable_env_checker=True)
    try:
        (registered,) = play(EnvSpec("policykd-test/OnlyHere-v0"), [job], Quiet())
    finally:
        gym.registry.pop("policykd-test/OnlyHere-v0")
    same([local], [registered])


def test_a_policy_that_cannot_be_sent_plays_here(helpers, teacher, monkeypatch):
    from tests.support.core import StubTeacher

    stub = StubTeacher(lambda x: x[:, :1] * 0 + x.new_tensor([0.0, 1.0, 0.0]))
    job = Job(Player(stub, Counting.action_space, True, 0), range(10))
    (found,) = play(factory_spec(Counting), [job], Quiet())
    assert len(found.returns) == 10


def test_a_helper_that_is_killed_costs_nothing(helpers, teacher, monkeypatch):
    whole = play(CARTPOLE, jobs(teacher), Quiet())
    assert children()
    killed = []

    class Kills(Quiet):
        def advance(self, n: int = 1) -> None:
            if not killed:
                victim = children()[0]
                killed.append(victim.pid)
                os.kill(victim.pid, signal.SIGKILL)
            super().advance(n)

    quiet = Kills()
    same(whole, play(CARTPOLE, jobs(teacher), quiet))
    assert killed
    assert quiet.done == 33
    same(whole, play(CARTPOLE, jobs(teacher), Quiet()))
    dismiss()


def test_an_interruption_ends_the_helpers(helpers, teacher):
    class Stops(Quiet):
        def check(self) -> None:
            if children():
                flag = StopFlag()
                flag.request("test")
                flag.check()

    with pytest.raises(Interrupted):
        play(CARTPOLE, [Job(Player(teacher, teacher.action_space, True, 0), range(200))], Stops())
    deadline = time.monotonic() + 10
    while children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children()
    assert not parallel._SHARED
    assert threading.active_count() < 10


class Broken(Counting):
    """An environment that fails in one of its episodes."""

    def step(self, action):
        if self.key == 17:
            raise ValueError("broken")
        return super().step(action)


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_of_the_environment_is_told_in_the_same_words(helpers, monkeypatch, count):
    monkeypatch.setattr(parallel, "_helpers", lambda: count)
    with pytest.raises(InputError) as error:
        play(factory_spec(Broken), [Job(Player(None, Broken.action_space, True, 0), range(20))], Quiet())
    assert str(error.value) == (
        "env Broken, the episode with seed 17: it raised ValueError: broken; mend the environment or its wrappers"
    )


@pytest.mark.parametrize("n", [1, 3, 4, 5, 50, 75, 76, 500, 1001])
def test_blocks_hold_every_seed_once(n):
    blocks = parallel._cut(range(10, 10 + n))
    assert [seed for block in blocks for seed in block] == list(range(10, 10 + n))
    assert all(blocks)
    assert max(map(len, blocks)) <= 1.5 * parallel._BLOCK


def test_the_pace_of_the_last_block_decides_whether_helpers_are_worth_it(teacher, monkeypatch):
    """Two blocks are too few to learn the pace from; the evaluation before told it."""
    asked = []

    class Team(parallel._Team):
        def __init__(self, spec):
            asked.append(spec)
            super().__init__(spec)

    monkeypatch.setattr(parallel, "_Team", Team)
    monkeypatch.setattr(parallel, "_helpers", lambda: 1)
    space = teacher.action_space
    two = [Job(Player(None, space, True, 0), range(8))]
    monkeypatch.setattr(parallel, "_PACE", {CARTPOLE.id: 0.01})
    first = play(CARTPOLE, two, Quiet())
    assert not asked and parallel._PACE[CARTPOLE.id] != 0.01, "the pace of what was played is kept"
    monkeypatch.setattr(parallel, "_PACE", {CARTPOLE.id: 10.0})
    second = play(CARTPOLE, two, Quiet())
    assert len(asked) == 1
    np.testing.assert_array_equal(first[0].returns, second[0].returns)


def test_all_blocks_together_keep_as_many_states_as_one_call_would(teacher, monkeypatch):
    monkeypatch.setattr(parallel, "_helpers", lambda: 0)
    player = Player(teacher, teacher.action_space, True, 0)
    (episodes,) = play(CARTPOLE, [Job(player, range(100), 1000)], Quiet())
    assert episodes.lengths.sum() > 40_000
    assert 500 <= len(episodes.visited) <= 1_500


def test_short_work_starts_no_process(teacher):
    dismiss()
    before = len(children())
    play(CARTPOLE, [Job(Player(None, teacher.action_space, True, 0), range(120))], Quiet())
    assert len(children()) <= before  # those of an earlier test may still be ending
    assert not parallel._SHARED


SCRIPT = """
    import os, sys
    print("once", flush=True)
    from policykd.evaluation import parallel
    from policykd.evaluation.parallel import Job, Player, play
    from policykd.rollout.envs import EnvSpec
    from policykd.spine.stop import NeverStop
    from policykd.teachers.load import load_teacher

    class Progress(NeverStop):
        def advance(self, n=1):
            pass

    parallel._WORTH, parallel._BLOCK, parallel._helpers = -1.0, 4, lambda: 1
    teacher = load_teacher("builtin:cartpole", env_id="CartPole-v1")
    job = Job(Player(teacher, teacher.action_space, True, 0), range(20))
    (found,) = play(EnvSpec("CartPole-v1"), [job], Progress())
    assert parallel._SHARED, "a helper was wanted"
    print(*[p.pid for p in parallel._SHARED[0]._processes.values()])
    print(found.returns.mean())
"""


def test_a_script_without_a_guard_is_not_run_again_and_leaves_nobody_behind(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(SCRIPT))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    first, pids, mean = done.stdout.splitlines()
    assert first == "once"
    assert float(mean) > 100
    assert done.stderr == ""
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.split())


def test_a_process_of_the_users_own_ends_and_leaves_nobody_behind(tmp_path):
    """multiprocessing waits for the children of a process that it started, before anything is called at its exit."""
    (tmp_path / "work.py").write_text("def work():\n" + textwrap.indent(textwrap.dedent(SCRIPT), "    "))
    main = """
        import multiprocessing
        from work import work
        if __name__ == "__main__":
            own = multiprocessing.get_context("spawn").Process(target=work)
            own.start()
            own.join(45)
            print(own.exitcode)
            own.kill()
    """
    (tmp_path / "main.py").write_text(textwrap.dedent(main))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90, check=False
    )
    _, pids, _, code = done.stdout.splitlines()
    assert code == "0", done.stderr
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.split())
