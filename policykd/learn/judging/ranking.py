"""Judging teachers before they teach: return, entropy, latency and cost of each, and which of several is best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from policykd.evaluation.entropy import entropy_in, tallied
from policykd.evaluation.episodes import Episodes, policy_actor, random_actor, run_episodes
from policykd.evaluation.stats import mean_interval, refuse_random_teacher, return_summary
from policykd.learn.judging.judge import Judging, describe, describe_teacher, environment, tell_notes
from policykd.learn.setup.session import Work
from policykd.learn.setup.sources import open_policy
from policykd.rollout.envs import EnvSpec
from policykd.rollout.fit import fit
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError, brief
from policykd.spine.types import Array
from policykd.spine.wrappers import judged_by
from policykd.students.student import Student
from policykd.teachers.base import Teacher

_VISITED = 4096  # states over which entropy is averaged
_WARM_UP, _TIMED = 30, 300  # calls of predict


@dataclass(frozen=True)
class Candidate:
    """One policy that is judged. `spec` is its environment."""

    source: str
    policy: Student | Teacher
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
    candidates = _fitted(_in_one_environment(candidates, env, work))
    tell_notes(work, {each.source: each.policy for each in candidates})
    with work.stage("judge", total=len(seeds) * (len(candidates) + 1)):
        first = candidates[0]
        by_random = run_episodes(first.spec, random_actor(first.policy.action_space, 0), seeds, work)
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


def _in_one_environment(candidates: Sequence[Candidate], env: EnvConfig | EnvSpec, work: Work) -> list[Candidate]:
    """The candidates, each in an environment in which an episode is worth the same; InputError where it is not.

    How they observe it is their own affair (stacked frames, time). Where the caller names an id, teachers act behind
    the wrappers that the students record of it.
    """
    named = isinstance(env, EnvConfig) and env.id is not None
    students = [each for each in candidates if not isinstance(each.policy, Teacher)]
    first = (students if named else [])[:1] or candidates[:1]
    kept, moved = [], False
    for each in candidates:
        spec = each.spec
        if named and isinstance(each.policy, Teacher) and not judged_by(spec.wrappers):
            spec = replace(spec, wrappers=(*judged_by(first[0].spec.wrappers), *spec.wrappers))
            moved = moved or spec != each.spec
        if _worth(spec) != _worth(first[0].spec):
            both = not isinstance(each.policy, Teacher) and not isinstance(first[0].policy, Teacher)
            recorded = both and spec.id == first[0].spec.id
            remedy = "name one with --env ID"
            if named or recorded:  # each keeps what it records of an id
                remedy = "judge them apart, or give all of it in Python with env=EnvConfig(id, kwargs, wrappers)"
            raise InputError(
                f"{each.source}: belongs to {_named(spec)}, but {first[0].source} to {_named(first[0].spec)}: returns "
                f"of different environments cannot be ranked; {remedy}"
            )
        kept.append(replace(each, spec=spec))
    if moved:
        work.tracker.note(f"all are judged in {_named(first[0].spec)}, as {first[0].source} records it")
    return kept


def _fitted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Each fitted to its environment; all within action masks, as soon as one of them needs them."""
    pairs = [fit(each.policy, each.source, each.spec) for each in candidates]
    masked = any(spec.masked for _, spec in pairs)
    backend: Any = {"backend": "sync"} if masked else {}
    return [
        Candidate(each.source, policy, replace(spec, masked=masked, **backend))
        for each, (policy, spec) in zip(candidates, pairs, strict=True)
    ]


def _worth(spec: EnvSpec) -> tuple[Any, ...]:
    """What returns depend on."""
    return spec.id, dict(spec.kwargs), judged_by(spec.wrappers), spec.factory


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


def latency_us(policy: Student | Teacher, observations: Array, work: Work) -> float:
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
