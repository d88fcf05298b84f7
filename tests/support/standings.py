"""Searches half done, by hand: a real `Standing` over a real session, whose returns are given instead of played."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from policykd.evaluation.confirm import Demand
from policykd.learn.setup.session import Session, Work
from policykd.rollout.envs import EnvSpec
from policykd.search import grid
from policykd.search.standing import Candidate, Standing
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.schema import Config
from policykd.spine.stop import NeverStop
from policykd.spine.tracker import NullTracker
from policykd.students.mlp import MlpStudent
from policykd.students.spec import MemberSpec
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher

DEMAND = Demand(keep=0.99, margin=0.02, least=200, most=1000, attempts=3)
EPISODES = 96


@cache
def cartpole() -> Teacher:
    return load_teacher("builtin:cartpole", env_id="CartPole-v1")


def session(folder: Path, teacher: Teacher | None = None, **config: Any) -> Session:
    """Of a search on CartPole, with a teacher that always gains 1 over random, give or take a little."""
    rng = np.random.default_rng(0)
    baseline = {
        "teacher_returns": (1 + 0.02 * rng.standard_normal(EPISODES)).tolist(),
        "random_returns": (0.02 * rng.standard_normal(EPISODES)).tolist(),
    }
    settings = Config.model_validate({"gate": {"keep": 0.99}, "search": {}, "data": {"weighting": "none"}, **config})
    work = Work(NullTracker(), NeverStop())
    return Session(settings, teacher or cartpole(), EnvSpec("CartPole-v1"), RunFolder(folder), work, baseline)


def blank(spec: MemberSpec) -> MlpStudent:
    """A student that knows nothing."""
    return grid.blank(cartpole(), spec, "tanh")


def standing(folder: Path, **config: Any) -> Standing:
    """Nobody in it yet."""
    return Standing(session(folder, **config), DEMAND)


def put(
    where: Standing, spec: MemberSpec, true: float, n: int = EPISODES, index: int = 3, **measured: float
) -> Candidate:
    """A candidate of a member, with n selection episodes at this retention."""
    candidate = Candidate(spec, index, 100 * index, blank(spec), measured)
    where.add(candidate)
    teacher, random = where.reference.on(range(1_000_000, 1_000_000 + n))
    noise = np.random.default_rng(1).standard_normal(n)
    returns: Sequence[float] = (teacher - (1 - true + 0.02 * noise) * (teacher - random)).tolist()
    where._judged[candidate.key] = list(returns)  # as a checkpoint would bring them
    return candidate
