"""Distillation in steps: teacher, students in between, the student, and generations of its own size.

Each step is one distillation (`policykd.learn.methods.distill`), driven and labelled in round 0 by the student before
it: teacher assistants (Mirzadeh et al. 2020, arXiv:1902.03393) and born-again students (Furlanello et al. 2018,
arXiv:1805.04770). All are judged on the selection seeds of the run, and the last against the original teacher on its
report seeds. docs/methods/progressive.md says where this differs from the papers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from policykd.learn.judging.proof import Proved, prove
from policykd.learn.judging.robustness import robustness
from policykd.learn.methods.distill import distill
from policykd.learn.run import STUDENT, Run, conclude, signed
from policykd.learn.setup.session import Session, Work
from policykd.rollout.assistant import Assistant
from policykd.spine.artifact import save_artifact
from policykd.spine.config.procedures import ProgressiveConfig
from policykd.spine.files import make_folder
from policykd.spine.tracker import Prefixed
from policykd.students.student import Student
from policykd.teachers.base import Teacher


@dataclass(frozen=True)
class Step:
    """One distillation of the chain; `final`: of the student's own size."""

    number: int
    width: int
    final: bool

    @property
    def folder(self) -> str:
        """Inside the run's."""
        return f"steps/{self.number}"


@dataclass(frozen=True)
class Taught:
    """What a step gave: the student, and its mean return on the selection seeds."""

    step: Step
    student: Student
    selected: float
    timesteps: int


def steps_of(config: ProgressiveConfig, width: int) -> list[Step]:
    """The chain of a settled configuration whose student has this width."""
    assert isinstance(config.steps, list)
    widths = [(step, False) for step in config.steps] + [(width, True)] * config.generations
    return [Step(number, own, final) for number, (own, final) in enumerate(widths, 1)]


def progressive(session: Session) -> Run:
    """What such a run does once its session is prepared; every step goes on where it was stopped."""
    width = session.config.student.width
    assert isinstance(width, int)
    chain = steps_of(session.config.progressive, width)
    done, teacher = list[Taught](), session.teacher
    for step in chain:
        done.append(_taught(session, teacher, step, len(chain)))
        teacher = Assistant(session.acting(done[-1].student), session.teacher)
    finals = [taught for taught in done if taught.step.final]
    best = max(finals, key=lambda taught: taught.selected)  # of equals the first, which is nearest to the teacher
    save_artifact(session.folder.path / STUDENT, *signed(session, best.student, {}).to_artifact())
    timesteps = sum(taught.timesteps for taught in done)
    proved = Proved(best.student, prove(session, best.student), timesteps)
    more = {"progressive": _document(session, done, best), **robustness(session, proved)}
    return conclude(session, proved, more, lambda _: {})


def _taught(session: Session, teacher: Teacher, step: Step, count: int) -> Taught:
    """One step in its part of the run's folder, with its own seed: generations begin with different weights."""
    config, last = session.config, step.number == count  # the last has the run's own folder and curves
    part = session.folder if last else session.folder.part(step.folder)
    own = config.model_copy(
        update={
            "student": config.student.model_copy(update={"width": step.width}),
            "progressive": ProgressiveConfig(),
            "seed": (config.seed + count - step.number) % 2**31,
        }
    )
    curves = session.work.tracker if last else Prefixed(session.work.tracker, f"{step.folder}/")
    work = Work(curves, session.work.stop)  # with seconds of its own, for the steps per second that are shown
    work.tracker.note(f"step {step.number} of {count}: width {step.width}")
    inner = replace(session, config=own, teacher=teacher, folder=part, work=work)
    distilled = distill(inner)
    returns = distilled.selection.returns
    best = max(returns[index][distilled.member] for index in returns)
    size = distilled.student.footprint.params
    work.tracker.note(f"step {step.number} of {count}: {size:,} parameters, selection return {best:.4g}")
    for stage, seconds in work.seconds.items():
        session.work.seconds[stage] = session.work.seconds.get(stage, 0.0) + seconds
    make_folder(session.folder.path / step.folder)
    save_artifact(session.folder.path / step.folder / STUDENT, *signed(session, distilled.student, {}).to_artifact())
    part.drop_shards()
    return Taught(step, distilled.student, best, distilled.timesteps)


def _document(session: Session, done: list[Taught], best: Taught) -> dict[str, Any]:
    """`progressive` of result.json; retention on selection episodes is a point estimate, and always of the original."""
    sums = {who: session.baseline[f"{who}_returns"] for who in ("teacher", "random")}
    teacher, random = (sum(returns) / len(returns) for returns in (sums["teacher"], sums["random"]))
    return {
        "chosen": best.step.number,
        "steps": [
            {
                "file": f"{taught.step.folder}/{STUDENT}",
                "width": taught.step.width,
                "params": taught.student.footprint.params,
                "return": taught.selected,
                "retention": (taught.selected - random) / (teacher - random),
                "timesteps": taught.timesteps,
            }
            for taught in done
        ],
    }
