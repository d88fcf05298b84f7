"""Runs a small distillation and kills its own process (SIGKILL) at a named moment: python killed_run.py OUT MOMENT."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from policykd import api
from policykd.learn.judging import trial
from policykd.learn.rounds import selection
from policykd.learn.setup import session
from policykd.learn.updates.update import Learner
from policykd.rollout import collect
from policykd.rollout.vecenv import SyncEnvs, VectorEnvs
from policykd.spine.config.load import load_config

SMALL = [
    *("rollout.rounds=4", "rollout.timesteps=4000", "update.n_updates=40", "student.width=8"),
    *("evaluate.episodes=4", "evaluate.select_episodes=2"),
]


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner: Any, name: str, number: int, *, after: bool = False) -> None:
    """Kills the process at the n-th call of `owner.name`, before or after it has run."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            die()
        result = original(*args, **kwargs)
        if calls == number and after:
            die()
        return result

    setattr(owner, name, wrapped)


def at_rename(file_name: str, *, after: bool) -> None:
    """Kills the process at the rename that puts `file_name` in place."""
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        hit = Path(target).name == file_name
        if hit and not after:
            die()
        done = original(self, target)
        if hit:
            die()
        return done

    Path.replace = replace  # type: ignore[method-assign]


def arm(moment: str) -> None:
    """Sets the trap."""
    if moment == "baseline":
        at_call(session, "run_episodes", 2)
    elif moment == "collect":
        for backend in (SyncEnvs, VectorEnvs):
            at_call(backend, "step", 1700)
    elif moment == "label":
        at_call(collect, "_check_labels", 3)
    elif moment == "update":
        at_call(Learner, "_descend", 100)
    elif moment == "select":
        at_call(selection, "run_episodes", 1)
    elif moment == "report":
        at_call(trial, "play", 1, after=True)
    elif moment == "artifact":
        at_rename("student.safetensors", after=True)
    elif moment != "never":
        name, _, when = moment.partition("/")
        at_rename(name, after=when == "after")


def main(out: str, moment: str, teacher: str) -> None:
    arm(moment)
    api.distill(load_config(None, SMALL, {"teacher": teacher}), out=out)


if __name__ == "__main__":
    main(*sys.argv[1:])
