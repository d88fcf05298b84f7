"""A whole `policykd finetune`: the student opened, the learning, the proof, and every document of its run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.evaluation.stats import mean_interval, return_summary
from policykd.finetuning.loop import Finetuning
from policykd.finetuning.models import refuse_pair, refuse_student
from policykd.finetuning.settings import refuse_of_ppo, refuse_unused
from policykd.learn.judging.proof import Proved, prove
from policykd.learn.judging.robustness import robustness
from policykd.learn.rounds.states import start
from policykd.learn.run import STUDENT, Run, Task, conclude, signed
from policykd.learn.setup.session import Session
from policykd.loss.distributions import SquashedDiagGaussian
from policykd.spine.artifact import save_artifact
from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config
from policykd.spine.config.student import StudentConfig
from policykd.spine.errors import InputError
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser

_VISITED = 4096  # of the teacher, for a new student's normaliser
_OF_RUN = ("teacher", "vec_normalize", "env", "student")


def finetune_config(config: Config, student: str | Path | None = None, live_teacher: bool = False) -> Config:
    """The configuration of a fine-tuning of `student`, by default that of `finetune.student`: what it does not say of
    teacher, environment and architecture is that of the student's own run, where a run folder was given.
    `live_teacher`: the teacher is an object, and need not be named.

    InputError for what fine-tuning has no use for, and where there is neither a student nor a random start.
    """
    own = config.finetune or FinetuneConfig()
    source = own.student if student is None else str(student)
    if source is None and own.start == "student":
        raise InputError(
            "finetune: no student: give a run folder of policykd distill or a student.safetensors, or start from new "
            "weights with finetune.start=random"
        )
    refuse_unused(config, source)
    if source is not None:
        config = _with_student(config, source, live_teacher)
    place = None if source is None else str(Path(source).absolute())
    return config.model_copy(update={"finetune": own.model_copy(update={"student": place})})


def fitting(task: Task) -> Task:
    """The task, where its student can be gone on with; InputError else, before a folder is made."""
    student = task.config.student
    if student.keys or student.wrappers:
        raise InputError(
            "finetune: the student sees the environment otherwise than its teacher (student.keys or student.wrappers), "
            "which policykd finetune of this version does not take: distil one that sees the same"
        )
    if task.spec.masked:
        raise InputError(
            f"env {task.spec.id}: forbids actions, which policykd finetune of this version does not take: export the "
            "student with --to sb3, and train on with MaskablePPO"
        )
    settings = task.config.finetune
    assert settings is not None
    if settings.student is not None:
        refuse_pair(refuse_student(load_student(settings.student), settings.student), task.teacher, settings.student)
    elif student.kind != "mlp" or isinstance(student.width, list) or isinstance(student.depth, list):
        raise InputError("finetune.start random: expected one student of kind mlp: give one width and one depth")
    elif student.seeds > 1:
        raise InputError(f"student.seeds {student.seeds}: policykd finetune trains one student: leave it out")
    if isinstance(task.teacher.distribution, SquashedDiagGaussian):
        refuse_of_ppo(settings, "SAC, which learns here since the teacher's distribution is a squashed Gaussian")
    return task


def finetune(session: Session) -> Run:
    """What a run of `policykd finetune` does once its session is prepared."""
    before = first_student(session)
    progress = Finetuning(session, before).run()
    student = progress.best
    save_artifact(session.folder.path / STUDENT, *signed(session, student, {}).to_artifact())
    proof = prove(session, student)
    timesteps = progress.history[-1].timesteps
    proved = Proved(student, proof, timesteps)
    more = {"finetune": _document(session, before, proved)} | robustness(session, proved)
    return conclude(session, proved, more, lambda _: {})


def first_student(session: Session) -> MlpStudent:
    """The student that goes on; a new one, in the given one's architecture or the configured one, where it starts at
    random."""
    settings = session.config.finetune
    assert settings is not None
    given = None if settings.student is None else refuse_student(load_student(settings.student), settings.student)
    if given is not None and settings.start == "student":
        return replace(given, provenance={}, scales=())  # weights that move are no whole numbers of 8 bits
    state = start(session)
    if given is not None:
        state.settle(given.normaliser)
    elif state.normaliser is None:
        actor = policy_actor(session.teacher, session.config.evaluate.deterministic, session.config.seed)
        seen = run_episodes(session.spec, actor, session.select_seeds, session.work, keep_visited=_VISITED).visited
        state.settle(Normaliser.measured(session.view.features(seen)))
    return refuse_student(state.student_now(0).to("cpu"), "finetune.start random")


def _with_student(config: Config, source: str, live_teacher: bool) -> Config:
    """What the user did not say, as the student's own run has it."""
    student = refuse_student(load_student(source), source)
    record = Path(source) / "config.yaml"
    said = config.model_fields_set
    if record.is_file():
        run = load_config(str(record), vouched=config.trust or config.env.allow_import)
        if run.ensemble.teachers and "teacher" not in said:
            raise InputError(
                f"{source}: was distilled from several teachers, and policykd finetune of this version asks one: say "
                "which with --teacher"
            )
        update: dict[str, Any] = {name: getattr(run, name) for name in _OF_RUN if name not in said}
        if "student" in update:  # which has begun already, wherever that was
            update["student"] = run.student.model_copy(update={"start": None})
        if "env" in said and not config.env.kwargs and config.env.id in (None, run.env.id):
            given = config.env.model_dump(exclude_unset=True)
            update["env"] = run.env.model_copy(update=given)
        return config.model_copy(update=update)
    if "teacher" not in said and not live_teacher:
        raise InputError(
            f"{source}: is a student without its run, which would name its teacher: say which one with --teacher"
        )
    sizes = [weight.shape[1] for weight, _ in student.layers[:-1]]
    shape = StudentConfig(width=sizes[0] if sizes else "auto", depth=len(sizes), activation=student.activation)
    return config.model_copy(update={"student": shape})


def _document(session: Session, before: MlpStudent, proved: Proved) -> dict[str, Any]:
    """`finetune` of result.json: the student that it started from on the report seeds, and what was won, paired."""
    run = session.folder.load_facts("latest") or {}
    actor = policy_actor(before, session.config.evaluate.deterministic, session.config.seed)
    with session.work.stage("report", total=len(proved.proof.seeds)):
        earlier = run_episodes(session.spec, actor, proved.proof.seeds, session.work).returns
    paired = proved.proof.paired
    kept = max(run["history"], key=lambda judged: (judged["return"], judged["timesteps"]))
    return {
        "before": {"return": return_summary(earlier)},
        "over_before": _difference(paired.student - earlier),
        "over_teacher": _difference(paired.student - paired.teacher),
        "critic": {name: run["warmup"][name] for name in ("source", "r2", "teacher_r2")},
        "kept": kept["timesteps"],
        "history": run["history"],
    }


def _difference(values: Any) -> dict[str, Any]:
    """Mean of the paired differences, with its 95 % interval."""
    return {"mean": float(np.mean(values)), "ci95": list(mean_interval(values))}
