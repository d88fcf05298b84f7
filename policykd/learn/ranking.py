"""Judging teachers before they teach: return, entropy, latency and cost of each, and which of several is best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from policykd.evaluation.episodes import Episodes, policy_actor, random_actor, run_episodes
from policykd.evaluation.stats import mean_interval, refuse_random_teacher, return_summary
from policykd.learn.judge import Judging, describe, describe_teacher
from policykd.learn.session import Work
from policykd.learn.sources import open_policy, policy_env
from policykd.rollout.envs import EnvSpec
from policykd.rollout.fit import fit
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.spine.types import Array
from policykd.spine.wrappers import Wrappers, judged_by
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


def rank(sources: Sequence[str], env: EnvConfig, how: Judging, work: Work) -> list[dict[str, Any]]:
    """The document of `describe` for each source with `judged` added, best return first.

    All play the same seeds, in one environment, beside the random policy. `judged` holds rank, env, episodes, seeds,
    return, length, success, entropy (nats, mean over visited states; None without a distribution of its own),
    latency_us, params, macs, random, above_random, and over_next: the paired difference to the one ranked below.
    Raises InputError, also when the sources belong to different environments; NumericsError; Interrupted.
    """
    seeds = how.seeds
    candidates = [_open(source, env, how) for source in sources]
    _one_environment(candidates)
    candidates = [Candidate(each.source, *fit(each.policy, each.source, each.spec)) for each in candidates]
    for candidate in candidates:
        for line in candidate.policy.info.notes if isinstance(candidate.policy, Teacher) else ():
            work.tracker.note(line)
    spec = candidates[0].spec
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


def _open(source: str, env: EnvConfig, how: Judging) -> Candidate:
    policy = open_policy(source, how.vec_normalize, trust=how.trust)
    return Candidate(source, policy, policy_env(policy, source, env))


def _described(candidate: Candidate) -> dict[str, Any]:
    policy = candidate.policy
    return describe_teacher(policy) if isinstance(policy, Teacher) else describe(candidate.source)


def _one_environment(candidates: Sequence[Candidate]) -> None:
    first = candidates[0]
    for other in candidates[1:]:
        if _worth(other.spec) != _worth(first.spec):
            raise InputError(
                f"{other.source}: belongs to {_named(other.spec)}, but {first.source} to {_named(first.spec)}: returns "
                "of different environments cannot be ranked; name one with --env ID"
            )


def _worth(spec: EnvSpec) -> tuple[str, dict[str, Any], Wrappers]:
    """What returns depend on: teachers may observe one environment differently (stacked frames, time)."""
    return spec.id, dict(spec.kwargs), judged_by(spec.wrappers)


def _named(spec: EnvSpec) -> str:
    inside = f" in {', '.join(name for name, _ in spec.wrappers)}" if spec.wrappers else ""
    return (f"{spec.id} {dict(spec.kwargs)}" if spec.kwargs else spec.id) + inside


def _judged(candidate: Candidate, how: Judging, by_random: Episodes, work: Work) -> tuple[dict[str, Any], Episodes]:
    policy = candidate.policy
    actor = policy_actor(policy, how.deterministic, 0)
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
        "entropy": None if candidate.spec.masked else entropy_on(policy, episodes.visited),
        "latency_us": latency_us(policy, episodes.visited, work),
        "params": size.params,
        "macs": size.macs,
        "random": return_summary(by_random.returns),
        "above_random": _above(episodes.returns, by_random.returns),
    }, episodes


def entropy_on(policy: MlpStudent | Teacher, observations: Array) -> float | None:
    """Mean entropy in nats on raw observations [B, *O] (before the tanh for a squashed Gaussian).

    None for a teacher whose distribution is not its own (Q-values, or a mean with a fixed spread), and for one with a
    memory, to which a state alone says nothing.
    """
    if isinstance(policy, Teacher) and (policy.value_teacher or policy.deterministic_teacher or policy.recurrent):
        return None
    batch = torch.from_numpy(np.ascontiguousarray(observations)).to(policy.device)
    return float(policy.distribution.entropy(policy.distribution_params(batch)).mean())


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
