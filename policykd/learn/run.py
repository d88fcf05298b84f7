"""A whole distillation in its folder: open and check what it is about, learn, prove, write everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from policykd.learn.combinations import refuse_combinations
from policykd.learn.finish import finished
from policykd.learn.judging.notes import notes_of
from policykd.learn.judging.proof import Proved, analysed, build_result, frontier, prove
from policykd.learn.judging.robustness import robustness
from policykd.learn.methods.distill import distill
from policykd.learn.rounds.families import refuse_unfit
from policykd.learn.rounds.offline import with_data
from policykd.learn.setup.defaults import refuse_shared_seeds
from policykd.learn.setup.disturbing import randomisable
from policykd.learn.setup.opening import named_places, open_teacher
from policykd.learn.setup.session import Session, Work, prepare
from policykd.learn.setup.started import refuse_unfit_start
from policykd.rollout.envs import EnvSpec, factory_spec, teacher_spec, with_views
from policykd.rollout.fit import fit_views
from policykd.spine.artifact import save_artifact
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import resolved_yaml
from policykd.spine.config.schema import Config, TaskConfig, task_configs
from policykd.spine.device import resolve_device
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.files import read_json, write_atomic, write_json
from policykd.spine.stop import StopFlag
from policykd.spine.tracker import Fanout, TensorBoardTracker, Tracker
from policykd.spine.wrappers import views_of
from policykd.students.load import load_student
from policykd.students.rules import rules_of
from policykd.students.spec import members_of
from policykd.students.student import Student
from policykd.students.tree import TreeStudent
from policykd.teachers.base import Teacher
from policykd.teachers.ensemble import teachers_of

Outcome = TypeVar("Outcome")

STUDENT, RULES = "student.safetensors", "rules.txt"
ASKED = "asked.yaml"
"""The configuration of a run of several tasks before anything was settled: each settles what is open for itself."""


@dataclass(frozen=True)
class Run:
    """A finished run: `result` is the document of result.json, `passed` the gate's verdict (None without a gate)."""

    folder: Path
    result: dict[str, Any]
    student: Student

    @property
    def passed(self) -> bool | None:
        """Whether the student held what `gate.keep` asked for; None when nothing was asked."""
        gate = self.result.get("gate")
        return None if gate is None else bool(gate["passed"])

    def __str__(self) -> str:
        held, size = self.result["retention"], self.result["student"]["params"]
        low, high = held["ci95"]
        fewer = self.result["compression"]
        return f"{self.folder}: retention {held['value']:.3f} ({low:.3f} to {high:.3f}) with {size} parameters" + (
            "" if fewer is None else f", {fewer:.1f} x fewer than the teacher"
        )


@dataclass(frozen=True)
class Task:
    """What a run is about, opened and checked."""

    config: Config
    teacher: Teacher
    spec: EnvSpec

    @property
    def name(self) -> str:
        """For the run's folder."""
        return f"{self.teacher.info.algo}-{self.spec.id}".replace("/", "-").replace(":", "-")


def open_task(config: Config, teacher: Any, env: Callable[..., Any] | None) -> Task:
    """Opens teacher and environment; everything that can be wrong with them is found before a folder is made."""
    refuse_shared_seeds(config, config.evaluate.select_episodes)
    loaded = open_teacher(config, teacher)
    if not config.student.wrappers:
        refuse_unfit(config.student, loaded)
    spec = factory_spec(env, config.env) if env is not None else teacher_spec(config.env, loaded.info)
    if config.student.wrappers:
        spec = with_views(spec, views_of(config.student.wrappers), config.env.backend)
    loaded, spec = fit_views(loaded, f"the teacher {loaded.info.source}", spec)
    if config.student.wrappers:
        refuse_unfit(config.student, loaded)
    refuse_combinations(config, loaded)
    refuse_unfit_start(config, loaded)
    spec = randomisable(spec, config.robust, config.env.backend)
    if spec.masked and config.env.backend == "native":
        line = "env.backend native: a vector class has no action masks to give; single environments are used (sync)"
        loaded = loaded.with_info(notes=(*loaded.info.notes, line))
    if config.data.dir is not None:
        config, loaded = with_data(config, loaded, spec)
    places = named_places(config, loaded, live=teacher is not None)
    places["tasks"] = [_opened(own, task) for own, task in zip(task_configs(config), config.tasks, strict=True)]
    if config.tasks and (loaded.masked or loaded.recurrent):
        raise _not_together(loaded)
    if env is not None:
        places["env"] = config.env.model_copy(update={"id": spec.recorded_id})
    resolve_device(config.device)
    return Task(config.model_copy(update=places), loaded, spec)


def _opened(own: Config, task: TaskConfig) -> TaskConfig:
    """One of several tasks, by names that hold in any folder; InputError where it cannot be opened."""
    opened = open_task(own, None, None)
    if opened.teacher.masked or opened.teacher.recurrent:
        raise _not_together(opened.teacher)
    places = {"teacher": opened.config.teacher, "vec_normalize": opened.config.vec_normalize}
    return task.model_copy(update=places)


def _not_together(teacher: Teacher) -> InputError:
    return InputError(
        f"{teacher.info.source}: needs action masks or has a memory, and a student of several tasks learns with "
        "neither: distil this teacher alone"
    )


def finished_run(folder: RunFolder) -> Run | None:
    """The run that the folder holds already, if it came to its end."""
    result = read_json(folder.path / "result.json")
    if result is None:
        return None
    folder.drop_shards()
    return Run(folder.path, result, load_student(folder.path))


def run_task(
    folder: RunFolder, task: Task, tracker: Tracker, stop: StopFlag, body: Callable[[Session], Outcome]
) -> Outcome:
    """Starts or continues the run in its folder; `body` is all between the settled configuration and the outcome.

    Raises InputError, NumericsError, Interrupted.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(task.config.threads)
    try:
        with folder:
            board = TensorBoardTracker(folder.path, purge_step=_first_new_points(folder))
            if not (folder.path / "config.yaml").is_file():
                if task.config.tasks:
                    write_atomic(folder.path / ASKED, resolved_yaml(task.config).encode())
                write_atomic(folder.path / "config.yaml", resolved_yaml(task.config).encode())
            try:
                return _run(folder, task, Work(Fanout([tracker, board]), stop), body)
            except Interrupted as error:
                raise Interrupted(f"{error}; continue with --resume {folder.path}") from None
            finally:
                board.close()
    finally:
        torch.set_num_threads(threads)


def _run(folder: RunFolder, task: Task, work: Work, body: Callable[[Session], Outcome]) -> Outcome:
    for line in task.teacher.info.notes:
        work.tracker.note(line)
    teacher = task.teacher.to(resolve_device(task.config.device))
    session = prepare(task.config, teacher, task.spec, folder, work)
    for line in notes_of(session.config, session.teacher):
        work.tracker.note(line)
    return body(session)


def distillation(session: Session) -> Run:
    """Learns and proves. The student is safe before it is judged."""
    distilled = distill(session)
    student = finished(session, distilled.student)
    save_artifact(session.folder.path / STUDENT, *signed(session, student, {}).to_artifact())
    proof = prove(session, student)
    specs = tuple(members_of(session.config.student, session.config.loss))

    def documents(result: dict[str, Any]) -> dict[str, Any]:
        return {"frontier.json": frontier(session, distilled, result, specs)} if len(specs) > 1 else {}

    proved = Proved(student, proof, distilled.timesteps)
    return conclude(session, proved, robustness(session, proved), documents)


def _first_new_points(folder: RunFolder) -> dict[str, int] | None:
    """Where the curves of a resumed run go on: over optimizer steps, and over timesteps; of its parts, whose curves
    begin with the part's name, as far as the part has come."""
    if not (folder.path / "config.yaml").is_file():
        return None
    points = dict[str, int]()
    for name, latest in {"": folder.load_facts("latest"), **folder.parts("latest")}.items():
        if latest is None or not {"updates", "timesteps"} <= latest.keys():
            points[name] = 0
        else:
            points |= {f"{name}update/": latest["updates"], f"{name}loss/": latest["updates"]}
            points[name] = latest["timesteps"] + 1
    return points


def conclude(
    session: Session,
    proved: Proved,
    more: dict[str, Any],
    documents: Callable[[dict[str, Any]], dict[str, Any]],
) -> Run:
    """The judged student, with its figures, and every document of the run; result.json last.

    `more` goes into result.json; `documents` gives other files' contents by name, once the result is known.
    """
    path = session.folder.path / STUDENT
    draft = build_result(session, proved, 0) | more
    student = signed(session, proved.student, _figures(draft))
    size = save_artifact(path, *student.to_artifact())
    result = build_result(session, proved, size) | more
    write_json(session.folder.path / "analysis.json", analysed(session, student))
    if isinstance(student, TreeStudent):
        write_atomic(session.folder.path / RULES, rules_of(student).encode())
    for name, document in documents(result).items():
        write_json(session.folder.path / name, document)
    session.work.tracker.hparams(session.config.model_dump(mode="json"), _final(result))
    write_json(session.folder.path / "result.json", result)
    session.folder.drop_shards()
    return Run(session.folder.path, result, student)


def signed(session: Session, student: Student, figures: dict[str, Any]) -> Student:
    """The student on the CPU with its origin: no times, no paths, so that equal runs give equal bytes."""
    import policykd

    config = session.config.model_dump(mode="json")
    info = session.teacher.info
    config["teacher"], config["vec_normalize"] = info.algo, None
    if config["finetune"] is not None:
        config["finetune"]["student"] = None
    config["student"]["start"] = session.baseline.get("start")  # its sha256
    config["ensemble"]["teachers"] = [teacher.info.algo for teacher in teachers_of(session.teacher)[1:]]
    teacher = {"sha256": info.sha256, "algo": info.algo, "params": info.footprint.params or None}
    origin = {"policykd": policykd.__version__, "teacher": teacher, "config": config, "figures": figures}
    return student.signed(origin).to("cpu")


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    names = ("env", "retention", "agreement", "worst_decile", "episodes", "seeds", "timesteps")
    returns = {f"{who}_return": result[who]["return"] for who in ("student", "teacher")}
    return {name: result[name] for name in names} | returns


def _final(result: dict[str, Any]) -> dict[str, float]:
    final = {
        "final/retention": result["retention"]["value"],
        "final/retention_lower": result["retention"]["ci95"][0],
        "final/return": result["student"]["return"]["mean"],
        "final/agreement": result["agreement"],
        "final/params": result["student"]["params"],
        "final/compression": result["compression"],
    }
    return {name: value for name, value in final.items() if value is not None}
