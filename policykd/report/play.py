"""`policykd play`: a policy in a window, or filmed, alone or beside its teacher on the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policykd.learn.judge import open_policy, policy_env
from policykd.report.video import record, show
from policykd.rollout.envs import EnvSpec, env_spec, make_env
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.spine.spaces import describe_space, same_shape
from policykd.students.mlp import MlpStudent
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher

_USED = ("id", "kwargs", "wrappers")
_WRITERS = frozenset({"RecordVideo"})  # wrappers of gymnasium that write where their arguments say


def play(student: str, teacher: str | None, env: EnvConfig, video: Path | None, seed: int) -> dict[str, Any]:
    """One deterministic episode of `student`, and of `teacher` where given, each from `seed`.

    `student` is a student file, a run folder, or a teacher's source. With `video` (.mp4 or .gif, not there yet) the
    policies are filmed side by side, without it they play one after the other in a window. The environment is `env`,
    or else the one in the policy's own record. Returns {"video", "seed", "policies": [{"label", "return", "steps"}]}.
    Raises InputError.
    """
    if not 0 <= seed < 2**31:
        raise InputError(f"--seed {seed}: expected 0 or more, and below 2^31")
    if video is not None and video.exists():
        raise InputError(f"--video {video}: exists already and is not overwritten; choose another name or remove it")
    policy = open_policy(student)
    spec = _spec(policy, student, env)
    alone = "teacher" if teacher is None and isinstance(policy, Teacher) else "student"
    policies: list[tuple[str, MlpStudent | Teacher]] = [(alone, policy)]
    if teacher is not None:
        policies.insert(0, ("teacher", load_teacher(teacher)))
    _check_spaces(policies, spec)
    make = partial(make_env, spec)
    shown = show(policies, make, seed=seed) if video is None else record(policies, make, video, seed=seed)
    played = [{name: entry[name] for name in ("label", "return", "steps")} for entry in shown["policies"]]
    return {"video": None if video is None else str(video), "seed": seed, "policies": played}


def _spec(policy: MlpStudent | Teacher, source: str, env: EnvConfig) -> EnvSpec:
    """The caller's environment, or else the one in the policy's record."""
    if env.id is None and isinstance(policy, MlpStudent):
        return env_spec(_recorded(policy.provenance, source))
    return policy_env(policy, env)


def _recorded(provenance: dict[str, Any], source: str) -> EnvConfig:
    """The environment that a student file names; nothing that it names is imported, and no wrapper of it writes."""
    config = provenance.get("config")
    section = config.get("env") if isinstance(config, dict) else None
    if not isinstance(section, dict) or section.get("id") is None:
        raise InputError(f"{source}: names no environment: say which one with --env ID")
    try:
        env = EnvConfig.model_validate({name: section[name] for name in _USED if name in section})
    except ValidationError as error:
        raise InputError(f"{source}: its environment cannot be read; say which one with --env ID") from error
    unsafe = [text for text in _texts([env.id, env.kwargs, env.wrappers]) if ":" in text or text in _WRITERS]
    if unsafe:
        raise InputError(
            f"{source}: its environment uses {unsafe[0]!r}, and what a file names is neither imported nor written to: "
            "say --env ID if you trust it (with --allow-import for package:Id)"
        )
    return env


def _texts(value: Any) -> Iterator[str]:
    """Every text inside nested lists and mappings, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(part)


def _check_spaces(policies: list[tuple[str, MlpStudent | Teacher]], spec: EnvSpec) -> None:
    made = make_env(spec)
    try:
        for label, policy in policies:
            pairs = (
                ("observation", policy.observation_space, made.observation_space),
                ("action", policy.action_space, made.action_space),
            )
            for what, expected, found in pairs:
                if not same_shape(expected, found):
                    raise InputError(
                        f"env {spec.id}: its {what} space is {describe_space(found)}, the {label} was made for "
                        f"{describe_space(expected)}; choose the environment with --env"
                    )
    finally:
        made.close()
