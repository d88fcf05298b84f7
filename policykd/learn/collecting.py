"""A whole `policykd collect`: labelled data as shards in a folder, each a pure function of its seed and its weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policykd.data.minari_sets import refuse_taken, write_minari
from policykd.data.stored import INDEX, MOST_SHARD, Stored, new_stored, open_stored, returns_of, row_bytes, table
from policykd.learn.rounds.offline import about_of, layout_for
from policykd.learn.run import Task, open_task
from policykd.learn.setup.session import Session
from policykd.learn.setup.sources import student_file
from policykd.rollout.collect import Shard, collect, label
from policykd.rollout.schedules import beta_schedule
from policykd.spine.config.rollout import BetaConfig
from policykd.spine.config.schema import Config
from policykd.spine.config.studies import CollectConfig
from policykd.spine.errors import InputError
from policykd.spine.files import sha256_of
from policykd.spine.seeding import SeedKey
from policykd.spine.spaces import describe_space, same_shape
from policykd.spine.types import is_recurrent
from policykd.students.load import load_student
from policykd.students.student import Student
from policykd.teachers.base import Teacher

_RESERVE = 256 * 2**20  # bytes of the disk that are left free


@dataclass(frozen=True)
class Collected:
    """A finished collection: `index` is the document of index.json, `minari` the folder of that data set."""

    folder: Path
    index: dict[str, Any]
    minari: Path | None

    @property
    def timesteps(self) -> int:
        """Labelled states."""
        return sum(shard["rows"] for shard in self.index["shards"])

    def summary(self) -> dict[str, Any]:
        """What there is, and what to do with it."""
        shards = self.index["shards"]
        known = [shard["return"] for shard in shards if shard["return"] is not None]
        found: dict[str, Any] = {
            "folder": str(self.folder),
            "shards": len(shards),
            "timesteps": self.timesteps,
            "episodes": sum(shard["episodes"] for shard in shards),
            "return": round(sum(known) / len(known), 3) if known else None,
            "megabytes": round(sum(shard["bytes"] for shard in shards) / 1e6, 1),
        }
        if self.minari is not None:
            found["minari"] = str(self.minari)
        return found | {"learn from it": f"policykd distill data={self.folder}, with the same teacher"}


def open_collection(config: Config, teacher: Any, env: Callable[..., Any] | None) -> Task:
    """Teacher, environment and whoever acts beside the teacher, opened and checked. InputError for what is useless."""
    for name, command in (("search", "shrink"), ("tune", "tune")):
        if getattr(config, name) is not None:
            raise InputError(f"{name}: a setting of policykd {command}, of no use to collect: leave it out")
    if config.data.dir is not None:
        raise InputError(f"data.dir {config.data.dir}: policykd collect writes data and reads none: leave it out")
    wishes = config.collect or CollectConfig()
    if wishes.student is None and config.rollout.beta != BetaConfig():
        raise InputError("rollout.beta: only the teacher acts: name who acts beside it with --student, or leave it out")
    task = open_task(config.model_copy(update={"collect": wishes}), teacher, env)
    if wishes.minari is not None:
        refuse_taken(wishes.minari)
    if wishes.student is not None:
        file = _opened(wishes.student, task.teacher)[0]
        wishes = wishes.model_copy(update={"student": str(file.absolute())})
    return replace(task, config=task.config.model_copy(update={"collect": wishes}))


def collection(session: Session) -> Collected:
    """Every shard that is still to do, then the Minari data set."""
    config, path = session.config, session.folder.path
    wishes = config.collect
    assert wishes is not None
    student, plan = None, _plan(config)
    if wishes.student is not None:
        file, student = _opened(wishes.student, session.teacher)
        plan["student"] = sha256_of(file.read_bytes())
    _refuse_too_large(session)
    stored = _begun(session, plan)
    for index in range(len(stored.shards), config.rollout.rounds):
        _one_shard(session, stored, index, student)
    if not stored.document["complete"]:
        stored.document["complete"] = True
        stored.save()
    minari = None
    if wishes.minari is not None:
        with session.work.stage("minari", total=len(stored.shards)):
            layout = layout_for(session.teacher, session.spec)
            minari = write_minari(stored, layout, session.spec, wishes.minari, session.work)
    return Collected(path, stored.document, minari)


def _one_shard(session: Session, stored: Stored, index: int, student: Student | None) -> None:
    config, work = session.config, session.work
    r = config.rollout
    assert isinstance(r.n_envs, int) and isinstance(r.n_steps, int)
    beta = 1.0 if student is None else beta_schedule(r.beta, r.rounds)(index)
    shard = Shard(SeedKey(config.seed, "collect", index), r.n_envs, r.n_steps, beta, r, whole=True)
    acts = None if student is None else session.acting(student).distribution_params
    with work.stage("collect", round=index, rounds=r.rounds, total=r.n_envs * r.n_steps):
        rollout = collect(shard, session.collecting, session.teacher, acts, work)
    with work.stage("label", round=index, rounds=r.rounds):
        params = label(rollout, session.teacher, work)
    with work.stage("write", round=index, rounds=r.rounds):
        columns = table(rollout, params)
        columns["action"] = columns["action"].astype(str(session.teacher.action_space.dtype))
        returns = returns_of(columns)
        stored.add(columns, {"beta": beta, "return": float(returns.mean()) if len(returns) else None})
    if len(returns):
        who = "return/rollout_teacher" if beta == 1 else "return/rollout"
        work.tracker.scalars({who: float(returns.mean())}, index)


def _begun(session: Session, plan: dict[str, Any]) -> Stored:
    """The data so far; InputError where it was made otherwise."""
    about = about_of(session.config, session.teacher, session.spec)
    if not (session.folder.path / INDEX).is_file():
        stored = new_stored(session.folder.path, about, plan)
        stored.save()
        return stored
    stored = open_stored(session.folder.path)
    for name, now, then in (("plan", plan, stored.document.get("plan")), ("about", about, stored.document["about"])):
        if now != then:
            raise InputError(
                f"{stored.path / INDEX}: its {name} is not that of config.yaml and of the files it names (teacher, "
                "student); start anew with another --out"
            )
    return stored


def _plan(config: Config) -> dict[str, Any]:
    """How the data is made."""
    r = config.rollout
    names = ("n_envs", "n_steps", "teacher_stochastic", "student_stochastic", "noise", "kernel")
    return {
        "seed": config.seed,
        "backend": config.env.backend,
        "shards": r.rounds,
        **{name: getattr(r, name) for name in names},
        "beta": r.beta.model_dump(mode="json"),
        "robust": config.robust.model_dump(mode="json") if config.robust.collect else None,
        "student": None,
    }


def _refuse_too_large(session: Session) -> None:
    """InputError where a shard would not fit into memory, or all of them onto the disk; nothing is left behind then."""
    r, path = session.config.rollout, session.folder.path
    done = len(open_stored(path).shards) if (path / INDEX).is_file() else 0
    assert isinstance(r.n_envs, int) and isinstance(r.n_steps, int)
    layout = layout_for(session.teacher, session.spec)
    one = r.n_envs * r.n_steps * sum(row_bytes(column) for name, column in layout.items() if name != "last")
    todo = (r.rounds - done) * one
    if session.config.collect is not None and session.config.collect.minari is not None:
        todo += r.rounds * one
    free = shutil.disk_usage(path).free
    if not done and (one > MOST_SHARD or todo > free - _RESERVE):
        session.folder.forget_facts("baseline")
    if one > MOST_SHARD:
        raise InputError(
            f"rollout: a shard of {r.n_envs} n_envs x {r.n_steps} n_steps takes {one / 2**30:.1f} GiB, expected at "
            f"most {MOST_SHARD >> 30}: raise rollout.rounds, or lower rollout.n_envs"
        )
    if todo > free - _RESERVE:
        raise InputError(
            f"{path}: the data takes about {todo / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of the disk are "
            "free: lower rollout.timesteps, or choose another --out"
        )


def _opened(source: str, teacher: Teacher) -> tuple[Path, Student]:
    """A student that can act where the teacher does; InputError else."""
    file = student_file(source)
    if file is None or not file.is_file():
        raise InputError(f"--student {source}: no student; give a student.safetensors or a run folder")
    student = load_student(file).to(teacher.device)
    if is_recurrent(student):
        raise InputError(f"--student {source}: has a memory; policykd collect takes students without one")
    pairs = (
        ("observes", student.observation_space, teacher.observation_space),
        ("acts in", student.action_space, teacher.action_space),
    )
    for verb, own, theirs in pairs:
        if not same_shape(own, theirs):
            raise InputError(
                f"--student {source}: {verb} {describe_space(own)[:80]}, but the teacher {describe_space(theirs)[:80]}"
                ": give a student of this teacher"
            )
    if student.distribution != teacher.distribution:
        raise InputError(f"--student {source}: has another distribution than the teacher: give one of this teacher")
    return file, student
