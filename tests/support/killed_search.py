"""Runs a small search and kills its own process (SIGKILL) at a named moment: python killed_search.py OUT MOMENT."""

from __future__ import annotations

import sys
from typing import Any

from policykd import api
from policykd.learn.judging import trial
from policykd.learn.updates.update import Learner
from policykd.rollout import collect
from policykd.search import generation, shrink
from policykd.spine.config.load import load_config
from tests.support.killed_run import at_call, at_rename

SMALL = [
    *("rollout.rounds=4", "rollout.timesteps=4000", "update.n_updates=40", "student.width=[1,2,4,8]"),
    *("student.depth=[0,1]", "search.generations=2", "search.refine_rounds=3", "search.seeds=2"),
    *("evaluate.select_episodes=4", "gate.least_episodes=20", "gate.most_episodes=40"),
]


def arm(moment: str) -> None:
    """Sets the trap."""
    where: dict[str, tuple[Any, str, int]] = {
        "label": (collect, "_check_labels", 3),
        "update": (Learner, "_descend", 100),
        "rung": (generation, "differences", 2),
        "second generation": (Learner, "_descend", 200),
        "settle": (shrink, "settle", 1),
        "settle again": (shrink, "settle", 2),
        "confirm": (shrink, "prove", 1),
        "episodes of the confirmation": (trial.Trial, "_keep", 1),
    }
    if moment in where:
        at_call(*where[moment], after=moment.startswith("settle"))
    elif moment != "never":
        name, _, when = moment.partition("/")
        at_rename(name, after=when == "after")


def main(out: str, moment: str) -> None:
    """A search on the built-in CartPole teacher."""
    from policykd.search.run import shrink_config

    arm(moment)
    api.shrink(shrink_config(load_config(None, SMALL, {}, keep=0.9)), out=out)


if __name__ == "__main__":
    main(*sys.argv[1:])
