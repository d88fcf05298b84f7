"""Judging teachers before they teach: return, entropy, latency and cost of each, and which of several is best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from policykd.evaluation.entropy import entropy_in, tallied
from policykd.evaluation.episodes import Episodes, policy_actor, random_actor, run_episodes
from policykd.evaluation.stats import mean_interval, refuse_random_teacher, return_summary
from policykd.learn.judge import Judging, describe, describe_teacher, environment, tell_notes
from policykd.learn.session import Work
from policykd.learn.sources import open_policy
from policykd.rollout.envs import EnvSpec
from policykd.rollout.fit import fit
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError, brief
from policykd.spine.types import Array
from policykd.students.mlp import MlpStudent
from policykd.teachers.base import Teacher

_VISITED = 4096  # states over which entropy is averaged
_WARM_UP, _TIMED = 30, 300  # calls of predict


@dataclass(frozen=True)
class Candidate:
    """One policy that is judged. `spec` is its environment."""

    source: str
    policy: MlpStudent | Teacher
    spec: EnvSpec


def rank(sources: Sequence[str], env: EnvConfig | EnvSpec, how: Judging, work: Work) -> list[dict[str, Any]]:
    """The document of `describe` for each source with `judged` added, best return first.

    All play the same seeds, in one environment, beside the random policy; within action masks, as soon as one of them
    needs masks. `judged` holds rank, env, episodes, seeds, return, length, success, entropy (nats, mean over visited
    states; None without a distribution of its own), latency_us, params, macs, random, above_random, and over_next: the
    paired difference to the one ranked below.
    Raises InputError, also when the sources belong to different environments; NumericsError; Interrupted.
    """
    seeds = how.seeds
    candidates = [_open(source, env, how) for source in sources]
    spec = _one_environment(candidates, env, work)
    policies = []
    for each in candidates:
        policy, spec = fit(each.policy, each.source, spec)  # with masks from the first that needs them
        policies.append(policy)
    candidates = [Candidate(each.source, policy, spec) for each, policy in zip(candidates, policies, strict=True)]
    tell_notes(work, {each.source: each.policy for each in candidates})
    with work.stage("judge", total=len(seeds) * (len(candidates) + 1)):
        by_random = run_episodes(spec, random_actor(candidates[0].policy.action_space, 0), seeds, work)
        judged = [_judged(each, how, by_random, work) for each in candidates]
    order = sorted(range(len(judged)), key=lambda i: -judged[i][1].returns.mean())
    documents = []
    for place, index in enumerate(order):
        figures, episodes = judged[index]
        below = judged[order[place + 1]][1].returns if place + 1 < len(order) else None
        figures = {"rank": place + 1, **figures, "over_next": _difference(episodes.returns, below)}
        documents.append({**_described(candidates[index]), "judged": figures})
    return documents


def _open(source: str, env: EnvConfig | EnvSpec, how: Judging) -> Candidate:
    policy = open_policy(source, how.vec_normalize, trust=how.trust)
    return Candidate(source, policy, environment(policy, source, env))


def _described(candidate: Candidate) -> dict[str, Any]:
    policy = candidate.policy
    return describe_teacher(policy) if isinstance(policy, Teacher) else describe(candidate.source)


def _one_environment(candidates: Sequence[Candidate], env: EnvConfig | EnvSpec, work: Work) -> EnvSpec:
    """The environment of all candidates; InputError where theirs differ.

    Only students record wrappers. Where the caller names an id, teachers act in what the students record of it.
    """
    named = isinstance(env, EnvConfig) and env.id is not None
    students = [each for each in candidates if not isinstance(each.policy, Teacher)]
    first, *others = (students if named else []) or candidates
    for other in others:
        if _same(other.spec) != _same(first.spec):
            recorded = other in students and first in students and other.spec.id == first.spec.id
            remedy = "name one with --env ID"
            if named or recorded:  # each keeps what it records of an id
                remedy = "judge them apart, or give all of it in Python with env=EnvConfig(id, kwargs, wrappers)"
            raise InputError(
                f"{other.source}: belongs to {_named(other.spec)}, but {first.source} to {_named(first.spec)}: returns "
                f"of different environments cannot be ranked; {remedy}"
            )
    if any(_same(each.spec) != _same(first.spec) for each in candidates):
        work.tracker.note(f"all are judged in {_named(first.spec)}, as {first.source} records it")
    return first.spec


def _same(spec: EnvSpec) -> tuple[Any, ...]:
    """What two descriptions of one environment have in common."""
    return spec.id, dict(spec.kwargs), spec.wrappers, spec.factory


def _named(spec: EnvSpec) -> str:
    behind = [f"behind {name} {options or ''}".rstrip() for name, options in spec.wrappers]
    return brief(" ".join([spec.id, *([str(spec.kwargs)] if spec.kwargs else []), *behind]))


def _judged(candidate: Candidate, how: Judging, by_random: Episodes, work: Work) -> tuple[dict[str, Any], Episodes]:
    policy = candidate.policy
    actor = tallied(policy_actor(policy, how.deterministic, 0))
    episodes = run_episodes(candidate.spec, actor, how.seeds, work, keep_visited=_VISITED)
    size = policy.info.footprint if isinstance(policy, Teacher) else policy.footprint
    return {
        "env": candidate.spec.id,
        "episodes": how.episodes,
        "seeds": [how.seeds[0], how.seeds[-1]],
        "deterministic": how.deterministic,
        "return": return_summary(episodes.returns),
        "length": float(episodes.lengths.mean()),
        "success": episodes.success_rate,
        "entropy": entropy_in(episodes, actor, policy),
        "latency_us": latency_us(policy, episodes.visited, work),
        "params": size.params,
        "macs": size.macs,
        "random": return_summary(by_random.returns),
        "above_random": _above(episodes.returns, by_random.returns),
    }, episodes


def latency_us(policy: MlpStudent | Teacher, observations: Array, work: Work) -> float:
    """Median microseconds of `predict` (the mode) for one of the raw observations [B, *O], on one thread; for a Dict or
    Tuple, of which no raw ones are kept, for samples of the space."""
    raw: Any = observations
    if not policy.packing.plain:
        raw = [policy.observation_space.sample() for _ in range(16)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spent = []
        for call in range(_WARM_UP + _TIMED):
            work.check()
            one = raw[call % len(raw)]
            begin = time.perf_counter_ns()
            policy.predict(one, deterministic=True)
            spent.append(time.perf_counter_ns() - begin)
    finally:
        torch.set_num_threads(threads)
    return float(np.median(spent[_WARM_UP:])) / 1000


def _above(returns: Array, random: Array) -> bool:
    try:
        refuse_random_teacher(returns, random)
    except InputError:
        return False
    return True


def _difference(returns: Array, below: Array | None) -> dict[str, Any] | None:
    """Mean difference, paired by seed, with its 95 % interval; clear when that lies above 0."""
    if below is None:
        return None
    low, high = mean_interval(returns - below)
    return {"mean": float((returns - below).mean()), "ci95": [low, high], "clear": low > 0}
