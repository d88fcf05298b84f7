"""Opening what a user names, and the environment that belongs to it. Nothing that a file names is imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policykd.data.stored import INDEX
from policykd.rollout.envs import EnvSpec, env_spec, students_own, teacher_spec, with_views
from policykd.rollout.fit import fit, fit_views
from policykd.spine.config.schema import EnvConfig
from policykd.spine.envargs import safe_kwargs
from policykd.spine.errors import InputError, brief
from policykd.spine.wrappers import WRITERS, checked, imports, parsed, views_of
from policykd.students.load import load_student
from policykd.students.student import Student
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher

_USED = ("id", "kwargs", "wrappers")


def student_file(source: str) -> Path | None:
    """The student file that `source` names, itself or as a run folder; None when it is not a student."""
    path = Path(source)
    inside = path / "student.safetensors"
    if inside.is_file():
        return inside
    if path.is_dir() and (path / INDEX).is_file():
        raise InputError(f"{source}: holds labelled data and no policy: use policykd distill data={source}")
    if path.is_dir() and (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
        raise InputError(f"{source}: this run has no student yet; continue it with policykd distill --resume {source}")
    return path if path.suffix == ".safetensors" else None


def open_policy(source: str, vec_normalize: str | None = None, *, trust: bool = False) -> Student | Teacher:
    """A student or a teacher (with its statistics, where given); InputError when `source` is neither."""
    if not source.startswith(("builtin:", "hf:")) and not Path(source).exists():
        raise InputError(
            f"{source}: no such file or folder; give a run folder, a student.safetensors, or a teacher (an SB3 zip, an "
            "RL-Zoo folder, builtin:NAME)"
        )
    file = student_file(source)
    return load_student(file) if file is not None else load_teacher(source, vec_normalize=vec_normalize, trust=trust)


def policy_env(policy: Student | Teacher, source: str, env: EnvConfig) -> EnvSpec:
    """The environment that the caller names, or else the one in the policy's own record, as this policy sees it."""
    return students_own(views_env(policy, source, env))


def views_env(policy: Student | Teacher, source: str, env: EnvConfig) -> EnvSpec:
    """The same, seen as its teacher does too, where a student saw it through wrappers of its own."""
    if isinstance(policy, Teacher):
        return teacher_spec(env, policy.info)
    if env.id is not None and env.id != _recorded_id(policy.provenance):
        return env_spec(env)
    # The user's own words are trust: an id with --allow-import, wrappers that they name. The file's words are not.
    own, seen = _recorded(
        policy.provenance, source, said={env.id, *_texts(env.wrappers)} if env.allow_import else set()
    )
    given = {name: getattr(env, name) for name in ("kwargs", "wrappers") if getattr(env, name)}
    given |= {name: getattr(env, name) for name in ("allow_import", "backend", "step_timeout")}
    spec = env_spec(own.model_copy(update=given))
    return spec if env.wrappers or not seen else with_views(spec, views_of(seen), env.backend)


def fit_pair(
    policy: tuple[Student | Teacher, str], teacher: tuple[Teacher, str], spec: EnvSpec
) -> tuple[Student | Teacher, Teacher, EnvSpec]:
    """Policy and teacher, each with its name, in one environment, which is seen in two ways where `spec` says so;
    InputError where one does not fit."""
    own, students = fit(*policy, students_own(spec))
    if not spec.student_wrappers:
        master, both = fit(*teacher, students)
        return own, master, both
    master, both = fit_views(*teacher, replace(spec, masked=students.masked))
    seen: Any = policy[0].fitted(master.observation_space)
    return seen, master, both


def _recorded_id(provenance: dict[str, Any]) -> Any:
    config = provenance.get("config")
    section = config.get("env") if isinstance(config, dict) else None
    return section.get("id") if isinstance(section, dict) else None


def _recorded(
    provenance: dict[str, Any], source: str, *, said: set[str | None]
) -> tuple[EnvConfig, list[str | dict[str, dict[str, Any]]]]:
    """The environment that a student file names, and the wrappers through which the student saw it. Nothing that only
    the file names, and the user has not `said`, is imported, and no wrapper of it writes."""
    name = _recorded_id(provenance)
    if name is None or str(name).startswith("function:"):
        raise InputError(f"{source}: names no environment: say which one with --env ID")
    section, student = provenance["config"]["env"], provenance["config"].get("student")
    try:
        env = EnvConfig.model_validate({name: section[name] for name in _USED if name in section})
        own = student.get("wrappers", []) if isinstance(student, dict) else []
        seen = EnvConfig.model_validate({"wrappers": own}).wrappers
    except ValidationError as error:
        raise InputError(f"{source}: its environment cannot be read; say which one with --env ID") from error
    wrappers = [*env.wrappers, *seen]
    texts = set(_texts([env.id, env.kwargs, wrappers]))
    unsafe = sorted(text for text in texts if (imports(text) or text in WRITERS) and text not in said)
    if unsafe:
        raise InputError(
            f"{source}: its environment uses {brief(', '.join(map(repr, unsafe)))}; what a file names is not imported "
            f"or run: if you trust it, name it yourself (--env {brief(env.id)} --allow-import; wrappers with EnvConfig "
            "in Python)"
        )
    given = env.kwargs if said else safe_kwargs(env.kwargs, f"{source}: its environment")
    if env.kwargs.get("render_mode") == "rgb_array":  # pictures for a wrapper, and no window
        given = {**given, "render_mode": "rgb_array"}
    checked([parsed(entry) for entry in wrappers if said.isdisjoint(_texts(entry))], f"{source}: its environment")
    return env.model_copy(update={"kwargs": given}), seen


def _texts(value: Any) -> Iterator[str]:
    """Every text inside nested lists and mappings, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(part)
