"""The section `progressive` (docs/methods/progressive.md), and what runs of several distillations have no use for."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from policykd.spine.config.data import DataConfig
from policykd.spine.config.judging import GateConfig
from policykd.spine.config.loss import LossConfig
from policykd.spine.config.robust import RobustConfig
from policykd.spine.config.section import Auto, Section
from policykd.spine.config.student import StudentConfig, Width


class ProgressiveConfig(Section):
    """Students between teacher and student, each of which teaches the next; and students that teach their like."""

    steps: Auto | list[Width] = []
    """Widths of the students in between, widest first; auto: so many that no step shrinks by more than `factor`; none:
    the student learns from the teacher itself."""
    factor: Annotated[float, Field(gt=1)] = 16.0
    """Of parameters, from one step to the next at most, where `steps` is auto."""
    generations: Annotated[int, Field(ge=1, le=16)] = 1
    """How often the student's own size is trained, from the second time on by its predecessor; the best is kept."""

    @property
    def on(self) -> bool:
        """Whether there is more than one distillation to do."""
        return self.steps != [] or self.generations > 1

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if isinstance(self.steps, list) and self.steps != sorted(set(self.steps), reverse=True):
            raise ValueError(f"steps {self.steps}: expected widths that fall, such as [128, 32]: sort them")
        return self


def refuse_procedures(
    student: StudentConfig,
    loss: LossConfig,
    data: DataConfig,
    command: str | None,
    progressive: ProgressiveConfig,
) -> None:
    """ValueError for a chain of distillations with what it has no use for; `command`: another than distill."""
    if not progressive.on:
        return
    if data.dir is not None:
        raise ValueError("progressive: data.dir holds the first teacher's labels alone: leave one of the two out")
    lists = [name for name in ("temperature", "alpha") if isinstance(getattr(loss, name), list)]
    if lists:
        raise ValueError(f"progressive: one student at a time, but loss.{lists[0]} describes a family: give one number")
    if command is not None:
        raise ValueError(f"progressive: policykd {command} has no use for it: use policykd distill")
    if student.kind not in ("mlp", "linear") or student.wrappers:
        found = "with student.wrappers" if student.wrappers else f"of kind {student.kind}"
        raise ValueError(f"progressive: students {found} cannot teach the next: use student.kind=mlp, without wrappers")
    many = [name for name in ("width", "depth") if isinstance(own := getattr(student, name), list) and len(own) > 1]
    if many or student.seeds > 1:
        raise ValueError(
            f"progressive: one student at a time, but student.{(many or ['seeds'])[0]} describes a family: give one "
            "number"
        )
    if progressive.steps and student.depth in (0, [0]):
        raise ValueError("progressive.steps: a linear student has no width to go down by: set student.depth=1 or more")
    width = student.width if isinstance(student.width, int) else 0
    if isinstance(progressive.steps, list) and any(step <= width for step in progressive.steps):
        raise ValueError(f"progressive.steps {progressive.steps}: expected widths above student.width {width}")


def refuse_together(
    student: StudentConfig,
    data: DataConfig,
    command: str | None,
    progressive: ProgressiveConfig,
    gate: GateConfig,
    robust: RobustConfig,
) -> None:
    """ValueError for several tasks with what they have no use for; `command`: another than distill."""
    if command is not None or progressive.on:
        other = "progressive" if command is None else f"policykd {command}"
        raise ValueError(f"tasks: {other} has no use for more than one task: leave one of the two out")
    if student.kind not in ("mlp", "linear") or student.keys is not None or student.wrappers:
        odd = "student.kind" if student.kind not in ("mlp", "linear") else "student.keys and student.wrappers"
        raise ValueError(f"tasks: {odd}: one student of several tasks is an mlp that sees all: leave it out")
    if data.dir is not None:
        raise ValueError("tasks: data.dir holds the states of one task: leave one of the two out")
    if gate.keep is not None:
        raise ValueError("tasks: gate.keep asks for one claim, and there are several tasks: judge each with evaluate")
    if robust.on:
        raise ValueError("tasks: robust has no effect on several tasks: leave it out")
