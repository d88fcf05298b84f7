"""Opening what a user names, and the environment that belongs to it. Nothing that a file names is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policykd.rollout.envs import EnvSpec, env_spec
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher

_USED = ("id", "kwargs", "wrappers")
_WRITERS = frozenset({"RecordVideo"})  # wrappers of gymnasium that write where their arguments say


def student_file(source: str) -> Path | None:
    """The student file that `source` names, itself or as a run folder; None when it is not a student."""
    path = Path(source)
    inside = path / "student.safetensors"
    if inside.is_file():
        return inside
    if path.is_dir() and (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
        raise InputError(f"{source}: this run has no student yet; continue it with policykd distill --resume {source}")
    return path if path.suffix == ".safetensors" else None


def open_policy(source: str) -> MlpStudent | Teacher:
    """A student or a teacher; InputError when `source` is neither."""
    if not source.startswith(("builtin:", "hf:")) and not Path(source).exists():
        raise InputError(
            f"{source}: no such file or folder; give a run folder, a student.safetensors, or a teacher (an SB3 zip, an "
            "RL-Zoo folder, builtin:NAME)"
        )
    file = student_file(source)
    return load_student(file) if file is not None else load_teacher(source)


def policy_env(policy: MlpStudent | Teacher, source: str, env: EnvConfig) -> EnvSpec:
    """The environment that the caller names, or else the one in the policy's own record."""
    if isinstance(policy, Teacher):
        return env_spec(env, policy.info.env_id, policy.info.env_kwargs)
    return env_spec(env if env.id is not None else _recorded(policy.provenance, source))


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
