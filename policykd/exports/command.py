"""`policykd export` and `policykd verify`: from what the user names to students, environments and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policykd.exports.bundle import Wishes, export_student
from policykd.exports.of_student import exportable
from policykd.exports.targets.table import TARGETS, target
from policykd.exports.verify import Check, Stage, student_of, verify_folder
from policykd.learn.setup.session import Work
from policykd.learn.setup.sources import policy_env, student_file
from policykd.rollout.envs import EnvSpec
from policykd.rollout.fit import fit
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.students.load import load_student
from policykd.students.student import Student


def export(
    student: Student | str | Path,
    to: str | Sequence[str],
    out: Path | None,
    env: EnvConfig | EnvSpec,
    wishes: Wishes,
    work: Work,
) -> list[dict[str, Any]]:
    """One document {"target", "folder", "verified"} for each target; InputError, with nothing written."""
    names = [name.strip() for name in (to.split(",") if isinstance(to, str) else to)]
    if not names or len(set(names)) < len(names):
        raise InputError(f"--to {','.join(names)}: expected one or more of {', '.join(TARGETS)}, each once")
    for name in names:
        target(name)
    if wishes.episodes < 0 or wishes.episodes == 1:
        raise InputError(f"--episodes {wishes.episodes}: expected 2 or more, or 0 to replay the test vectors alone")
    policy, source, beside = _student(student)
    if out is None and beside is None:
        raise InputError("export: a student in memory needs a folder: say which with out=...")
    root = out if out is not None else Path(str(beside)) / "exports"
    single = out is not None and len(names) == 1
    places = [(name, root if single else root / name) for name in names]
    stage = _environment(policy, source, env) if wishes.vectors == "recorded" or wishes.episodes else None
    return export_student(policy, stage, places, wishes, work)


def verify(folder: Path, episodes: int, env: EnvConfig | EnvSpec, work: Work, *, trust: bool) -> dict[str, Any]:
    """The checks of an export folder; InputError where one fails, NumericsError, Interrupted."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that policykd export wrote")
    if episodes < 0 or episodes == 1:
        raise InputError(f"--episodes {episodes}: expected 2 or more, or 0 to replay the test vectors alone")
    stage = None
    if episodes and (folder / "student.safetensors").is_file():
        stage = _environment(student_of(folder), str(folder), env)
    return verify_folder(folder, stage, Check(episodes), work, trust=trust)


def _student(student: Student | str | Path) -> tuple[Student, str, Path | None]:
    """The student, what messages call it, and the folder that it lies in."""
    if isinstance(student, Student):
        return exportable(student, "student").to("cpu"), "student", None
    file = student_file(str(student)) or Path(student)
    return exportable(load_student(file), str(student)), str(student), file.parent


def _environment(student: Student, source: str, env: EnvConfig | EnvSpec) -> Stage:
    spec = env if isinstance(env, EnvSpec) else policy_env(student, source, env)
    actor, spec = fit(student, source, spec)
    return Stage(spec, actor)
