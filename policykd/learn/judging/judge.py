"""Judging and describing what is already there: a student file, a run folder, or a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policykd.evaluation.episodes import Actor, Episodes, policy_actor, random_actor, run_episodes
from policykd.evaluation.smoothness import mean_change
from policykd.evaluation.stats import refuse_random_teacher, retention, return_summary, worst_decile
from policykd.evaluation.watched import agreement_in, watched
from policykd.learn.setup.session import Work
from policykd.learn.setup.sources import fit_pair, open_policy, policy_env, student_file, views_env
from policykd.rollout.envs import EnvSpec
from policykd.rollout.fit import fit
from policykd.spine.artifact import read_header
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.spine.spaces import describe_space, encode_space
from policykd.spine.wrappers import written
from policykd.students.student import Student
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher

_VISITED_FOR_AGREEMENT = 20_000


@dataclass(frozen=True)
class Judging:
    """How to judge: episode i has seed `first_seed` + i; actions are modes, or samples."""

    episodes: int = 100
    first_seed: int = 10_000
    deterministic: bool = True
    vec_normalize: str | None = None  # statistics of a teacher that does not bring its own
    trust: bool = False  # whether stable-baselines3's own loader may open a teacher, as in load_teacher

    @property
    def seeds(self) -> range:
        """One seed per episode; InputError for impossible ones."""
        if self.episodes < 2:
            raise InputError(f"episodes {self.episodes}: an interval needs at least 2")
        if not 0 <= self.first_seed < 2**31 - self.episodes:
            raise InputError(f"seed {self.first_seed}: expected 0 or more, and below 2^31 less the episodes")
        return range(self.first_seed, self.first_seed + self.episodes)


def judge(source: str, teacher: str | None, env: EnvConfig | EnvSpec, how: Judging, work: Work) -> dict[str, Any]:
    """Returns on the seeds of `how`; with a teacher also its returns, retention and agreement.

    Raises InputError for sources and environments that do not fit; NumericsError; Interrupted.
    """
    seeds = how.seeds
    policy, master = _opened(source, teacher, how)
    if master is None:
        policy, spec = fit(policy, source, environment(policy, source, env))
    else:
        where = env if isinstance(env, EnvSpec) else views_env(policy, source, env)
        policy, master, spec = fit_pair((policy, source), (master, str(teacher)), where)
    tell_notes(work, {source: policy} if master is None else {source: policy, str(teacher): master})

    def measure(actor: Actor, keep: int = 0) -> Episodes:
        return run_episodes(spec, actor, seeds, work, keep_visited=keep)

    with work.stage("report", total=len(seeds) * (1 if master is None else 3)):
        actor = watched(policy_actor(policy, how.deterministic, 0), master)
        own = measure(actor, 0 if master is None else _VISITED_FOR_AGREEMENT)
        result: dict[str, Any] = {
            "source": source,
            "env": spec.id,
            "episodes": how.episodes,
            "seeds": [seeds[0], seeds[-1]],
        }
        result |= {"deterministic": how.deterministic, **_summary(own)}
        if master is not None:
            theirs, random = (
                measure(policy_actor(master, how.deterministic, 0)),
                measure(random_actor(policy.action_space, 0)),
            )
            refuse_random_teacher(theirs.returns, random.returns)
            held = retention(theirs.returns, own.returns, random.returns, 0)
            result |= {
                "teacher": {"source": teacher, **_summary(theirs)},
                "random": _summary(random),
                "retention": {"value": held.value, "ci95": [held.low, held.high]},
                "agreement": agreement_in(own, actor, master, policy),
            }
    return result


def _opened(source: str, teacher: str | None, how: Judging) -> tuple[Student | Teacher, Teacher | None]:
    """The policy, and its teacher where there is one. Statistics that are given are the teacher's, and the policy's too
    where it is a teacher that brings none."""
    if teacher is None:
        return open_policy(source, how.vec_normalize, trust=how.trust), None
    try:
        policy = open_policy(source, trust=how.trust)
        bare = isinstance(policy, Teacher) and policy.normalizer is None
    except InputError:  # such as for a folder whose own statistics are missing
        if how.vec_normalize is None:
            raise
        bare = True
    if bare and how.vec_normalize is not None:
        policy = open_policy(source, how.vec_normalize, trust=how.trust)
    return policy, load_teacher(teacher, vec_normalize=how.vec_normalize, trust=how.trust)


def environment(policy: Student | Teacher, source: str, env: EnvConfig | EnvSpec) -> EnvSpec:
    """Where the policy is judged: as in `policy_env`, or in the caller's own environment, which is ready."""
    return env if isinstance(env, EnvSpec) else policy_env(policy, source, env)


def tell_notes(work: Work, policies: Mapping[str, Student | Teacher]) -> None:
    """What teachers say of themselves, each line with the source that it is about."""
    for source, policy in policies.items():
        for line in policy.info.notes if isinstance(policy, Teacher) else ():
            work.tracker.note(line if line.startswith((f"{source}: ", f"{source} ")) else f"{source}: {line}")


def _summary(episodes: Episodes) -> dict[str, Any]:
    return {
        "return": return_summary(episodes.returns),
        "length": float(episodes.lengths.mean()),
        "action_change": mean_change(episodes.change, episodes.lengths),
        "worst_decile": worst_decile(episodes.returns),
        "success": episodes.success_rate,
    }


def describe(source: str, vec_normalize: str | None = None, *, trust: bool = False) -> dict[str, Any]:
    """A student's whole header, or a teacher's algorithm, spaces, network, parameters, normaliser and versions."""
    file = student_file(source)
    if file is not None:
        own = {"kind": "student", "source": source, "file": file.name, "bytes": file.stat().st_size}
        return own | read_header(file) | own  # whatever a header calls itself
    return describe_teacher(load_teacher(source, vec_normalize=vec_normalize, trust=trust))


def describe_teacher(teacher: Teacher) -> dict[str, Any]:
    """Algorithm, spaces, network, parameters, normaliser and versions of a teacher that is open."""
    info = teacher.info
    return {
        "kind": "teacher",
        "source": info.source,
        "sha256": info.sha256,
        "algo": info.algo,
        "env": info.env_id,
        "trained_on": info.trained_on,
        "env_kwargs": info.env_kwargs,
        "wrappers": written(info.wrappers),
        "observation_space": {
            "short": describe_space(teacher.observation_space),
            **encode_space(teacher.observation_space),
        },
        "action_space": {"short": describe_space(teacher.action_space), **encode_space(teacher.action_space)},
        "distribution": teacher.distribution.to_json(),
        "action_map": teacher.action_map.kind,
        "network": {"layers": [list(pair) for pair in info.layers], "activation": info.activation, "gsde": info.gsde},
        "params": info.footprint.params,
        "constants": info.footprint.constants,
        "macs": info.footprint.macs,
        "normaliser": None if teacher.normalizer is None else teacher.normalizer.to_json(),
        "versions": info.versions,
        "notes": list(info.notes),
    }
