"""`policykd play`: a policy in a window, or filmed, alone or beside its teacher on the same seed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from policykd.learn.setup.opening import open_teacher
from policykd.learn.setup.sources import fit_pair, open_policy, policy_env, views_env
from policykd.report.video import record, show
from policykd.rollout.envs import make_env
from policykd.rollout.fit import fit
from policykd.spine.artifact import read_header
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.students.student import Student
from policykd.teachers.base import Teacher
from policykd.teachers.load import HUB, load_teacher


def play(
    student: str, teacher: str | None, env: EnvConfig, video: Path | None, seed: int, *, trust: bool = False
) -> dict[str, Any]:
    """One deterministic episode of `student`, and of `teacher` where given, each from `seed`.

    `student` is a student file, a run folder, or a teacher's source. With `video` (.mp4 or .gif, not there yet) the
    policies are filmed side by side, without it they play one after the other in a window. The environment is `env`,
    or else the one in the policy's own record; `trust` as in `load_teacher`. Returns {"video", "seed", "policies":
    [{"label", "return", "steps"}]}. Raises InputError.
    """
    if not 0 <= seed < 2**31:
        raise InputError(f"--seed {seed}: expected 0 or more, and below 2^31")
    if video is not None and video.exists():
        raise InputError(f"--video {video}: exists already and is not overwritten; choose another name or remove it")
    policy = open_policy(student, trust=trust)
    master = load_teacher(teacher, trust=trust) if teacher is not None else None
    if master is None and video is not None:
        master = _own_teacher(Path(student))
    alone = "teacher" if master is None and isinstance(policy, Teacher) else "student"
    policies: list[tuple[str, Student | Teacher]]
    if master is None:
        suited, spec = fit(policy, f"the {alone}", policy_env(policy, student, env))
        policies = [(alone, suited)]
    else:
        where = views_env(policy, student, env)
        suited, master, spec = fit_pair((policy, "the student"), (master, "the teacher"), where)
        policies = [("teacher", master), ("student", suited)]
    make = partial(make_env, spec)
    shown = show(policies, make, seed=seed) if video is None else record(policies, make, video, seed=seed)
    played = [{name: entry[name] for name in ("label", "return", "steps")} for entry in shown["policies"]]
    return {"video": None if video is None else str(video), "seed": seed, "policies": played}


def _own_teacher(folder: Path) -> Teacher | None:
    """The teacher that a run folder names, where it lies on this machine; a film without it shows the student alone.

    That the folder names it is no word of the user's: nothing is fetched, and nothing is trusted.
    """
    if not (folder / "config.yaml").is_file() or not (folder / "student.safetensors").is_file():
        return None
    taught_by = read_header(folder / "student.safetensors").get("provenance", {}).get("teacher")
    try:
        config = load_config(str(folder / "config.yaml"))
        sources = (config.teacher, *config.ensemble.teachers)
        if any(name.startswith(HUB) for name in sources) or not isinstance(taught_by, dict):
            return None
        teacher = open_teacher(config)
    except InputError:
        return None
    return teacher if teacher.info.sha256 == taught_by.get("sha256") else None
