"""One student for several environments, each with its teacher: a shared trunk, an input adapter and a head for each.

Every round collects and labels in each task as a distillation of that task alone does, with the student's slice
(`policykd.students.joint`); then all tasks are learned together, with an equal share of every mini-batch (the shared
network of Rusu et al. 2015, arXiv:1511.06295, section 3.3). docs/methods/multitask.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from policykd.data.dataset import Dataset
from policykd.data.tasks import TaskDataset
from policykd.learn.judging.proof import Proved, build_result, prove
from policykd.learn.methods.distill import shard_data
from policykd.learn.rounds.resuming import restore, save
from policykd.learn.rounds.selection import Choice, select
from policykd.learn.rounds.states import LearningState, start
from policykd.learn.rounds.targets import family_loss, round_loss
from policykd.learn.rounds.trace import trace_round
from policykd.learn.run import ASKED, STUDENT, Run, conclude, open_task, signed
from policykd.learn.setup.session import Session, Work, prepare
from policykd.learn.updates.update import Learner
from policykd.loss.heads import HeadLoss, Heads
from policykd.loss.losses import Loss
from policykd.spine.artifact import save_artifact
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config, task_configs
from policykd.spine.seeding import SeedKey
from policykd.spine.tracker import Prefixed
from policykd.students.family import Family
from policykd.students.joint import Joint
from policykd.students.spec import members_of
from policykd.students.student import Student

_SHARED = "tasks/shared"  # the part of the run's folder that holds what all tasks learn


@dataclass
class Lesson:
    """One task: its name, its session, and the state of its data, normaliser and selection; the family in it is the
    slice of the one that learns."""

    name: str
    session: Session
    state: LearningState

    @property
    def family(self) -> Family:
        """The slice."""
        assert isinstance(self.state.family, Family)
        return self.state.family

    @property
    def dataset(self) -> Dataset:
        """Its labelled states."""
        assert isinstance(self.state.dataset, Dataset)
        return self.state.dataset

    def retention(self, choice: Choice) -> float:
        """Of a member after a round, on the task's selection episodes."""
        teacher, random = (np.mean(self.session.baseline[f"{who}_returns"]) for who in ("teacher", "random"))
        return float((self.state.selection.returns[choice.round][choice.member] - random) / (teacher - random))


def multitask(session: Session) -> Run:
    """What such a run does once the session of its first task is prepared."""
    sessions = _sessions(session)
    main = sessions[0][1]
    heads = Heads(tuple(own.teacher.distribution for _, own in sessions))
    sizes = [own.view.packing.n_features for _, own in sessions]
    config = main.config
    specs = members_of(config.student, config.loss)
    joint = Joint(specs, sizes, heads, config.student.activation, config.seed, config.device)
    learner = Learner(joint.family, HeadLoss(heads=heads, dealt=True), config.update, config.rollout.rounds)
    shared = session.folder.part(_SHARED)
    lessons, done = _begun(sessions, learner, shared)
    together = TaskDataset([lesson.dataset for lesson in lessons], sizes)
    for index in range(done, config.rollout.rounds):
        _round(lessons, joint, learner, together, index)
        facts = {"timesteps": [lesson.state.timesteps for lesson in lessons]}
        shared.save_state(index, {name: value.cpu().numpy() for name, value in learner.state().items()}, facts)
    return _concluded(lessons, joint)


def _sessions(first: Session) -> list[tuple[str, Session]]:
    """Every task's name and session; all have the first one's student, of the largest width where that is open."""
    found = [(first.spec.id, first)]
    allowed = first.config.trust or first.config.env.allow_import  # no more than config.yaml, which was looked at
    asked = load_config(str(first.folder.path / ASKED), vouched=allowed)
    for number, own in enumerate(task_configs(asked), 2):
        task = open_task(own, None, None)
        name = f"{number}-{task.name}"
        part, work = first.folder.part(f"tasks/{name}"), Work(first.work.tracker, first.work.stop)
        work.tracker = Prefixed(first.work.tracker, f"tasks/{name}/")
        known = task.config if part.load_facts("baseline") is None else _settled(part)
        found.append((name, prepare(known, task.teacher.to(first.config.device), task.spec, part, work)))
    student, settled = first.config.student, [own.config for _, own in found]
    if asked.student.width == "auto":
        widest = max(own.student.width for own in settled if isinstance(own.student.width, int))
        student = student.model_copy(update={"width": widest})
    most = max(own.update.n_updates for own in settled if isinstance(own.update.n_updates, int))
    update = first.config.update.model_copy(update={"n_updates": most})
    shared = {"student": student, "update": update}
    return [(name, replace(own, config=own.config.model_copy(update=shared))) for name, own in found]


def _settled(part: RunFolder) -> Config:
    return load_config(str(part.path / "config.yaml"), vouched=True)


def _begun(sessions: list[tuple[str, Session]], learner: Learner, shared: RunFolder) -> tuple[list[Lesson], int]:
    """The lessons, and how many rounds are done: what was last saved for all is where they go on."""
    found = shared.load_state()
    if found is None:
        return [Lesson(name, own, start(own)) for name, own in sessions], 0
    tensors, facts = found
    learner.load_state({name: torch.from_numpy(value) for name, value in tensors.items()})
    lessons = []
    for (name, own), timesteps in zip(sessions, facts["timesteps"], strict=True):
        state = restore(own, facts["round"])
        assert state is not None  # every task is saved before what they share
        state.timesteps = timesteps
        lessons.append(Lesson(name, own, state))
    return lessons, facts["round"] + 1


def _round(lessons: list[Lesson], joint: Joint, learner: Learner, together: TaskDataset, index: int) -> None:
    """Collect in every task, fit all, judge every task; ends in a checkpoint of each."""
    main = lessons[0].session
    gathered = []
    for task, lesson in enumerate(lessons):
        joint.onto(task, lesson.family)
        visited = shard_data(lesson.session, lesson.state, index)
        inputs, labels, fresh = lesson.state.absorb(visited)
        lesson.state.keep(index, visited, inputs, labels)
        gathered.append((visited, fresh))
        if index == 0:
            joint.start_log_std(task, lesson.family)
    own = _loss(lessons, index)
    learner.loss = HeadLoss(heads=joint.heads, own=own, dealt=True)
    rounds, key = main.config.rollout.rounds, SeedKey(main.config.seed, "update", index)
    with main.work.stage("update", round=index, rounds=rounds, total=learner.n_updates):
        metrics = learner.fit(together, index, key, main.work)
    for task, (lesson, (visited, fresh)) in enumerate(zip(lessons, gathered, strict=True)):
        joint.onto(task, lesson.family)
        select(lesson.session, lesson.state, index)
        trace_round(lesson.session, lesson.state, index, visited, metrics, fresh)
        save(lesson.session, lesson.state, index)


def _loss(lessons: list[Lesson], index: int) -> Loss:
    """The loss of a round, by the members' progress: their mean over tasks (NaN before any is known)."""
    config, family = lessons[0].session.config, lessons[0].family
    known = [lesson.state.progress or [float("nan")] * len(family) for lesson in lessons]
    progress = np.mean(known, axis=0).tolist()
    base = family_loss(config.loss, family.specs, masked=False)
    loss = round_loss(config.loss, base, (index, config.rollout.rounds), progress)
    for lesson in lessons:
        lesson.state.learner.loss = loss
    return loss


def _concluded(lessons: list[Lesson], joint: Joint) -> Run:
    """The round and member that keep most on average over tasks, judged in each."""
    main = lessons[0].session
    choices = [Choice(r, m) for r in lessons[0].state.selection.returns for m in range(len(joint.family))]

    def worth(choice: Choice) -> tuple[float, int, int]:
        size = joint.family.footprint(choice.member).params
        return float(np.mean([lesson.retention(choice) for lesson in lessons])), -size, choice.round

    best = max(choices, key=worth)
    students = [lesson.state.student_of(best.round, best.member) for lesson in lessons]
    save_artifact(main.folder.path / STUDENT, *signed(main, students[0], {}).to_artifact())
    judged = [_judged(*pair, first=task == 0) for task, pair in enumerate(zip(lessons, students, strict=True))]
    for lesson in lessons[1:]:
        for stage, seconds in lesson.session.work.seconds.items():
            main.work.seconds[stage] = main.work.seconds.get(stage, 0.0) + seconds
    held = [document["retention"]["value"] for _, document in judged]
    size = joint.family.footprint(best.member)
    taught = [lesson.session.teacher.info.footprint.params for lesson in lessons]
    document = {
        "params": size.params,
        "compression": sum(taught) / size.params if all(taught) else None,
        "retention": {"mean": float(np.mean(held)), "worst": min(held)},
        "each": [document for _, document in judged],
    }
    timesteps = sum(lesson.state.timesteps for lesson in lessons)
    return conclude(main, replace(judged[0][0], timesteps=timesteps), {"tasks": document}, lambda _: {})


def _judged(lesson: Lesson, student: Student, *, first: bool) -> tuple[Proved, dict[str, Any]]:
    """One task's report episodes, and its entry in result.json; a further task's student has a file of its own."""
    session = lesson.session
    proved = Proved(student, prove(session, student), lesson.state.timesteps)
    name = STUDENT if first else f"student-{lesson.name}.safetensors"
    size = 0
    if not first:
        size = save_artifact(session.folder.path.parents[1] / name, *signed(session, student, {}).to_artifact())
    result = build_result(session, proved, size)
    keys = ("env", "random", "retention", "agreement", "worst_decile", "success", "episodes", "timesteps")
    teacher = {key: result["teacher"][key] for key in ("source", "sha256", "algo", "params", "return")}
    own = {"file": name, "params": student.footprint.params, "return": result["student"]["return"]}
    return proved, {"teacher": teacher, "student": own, **{key: result[key] for key in keys}}
