"""Settings that make no sense with this teacher: refused before a run begins."""

from __future__ import annotations

from policykd.learn.augment import refuse_augment
from policykd.loss.terms import refuse_undefined
from policykd.loss.weighting import weigh_by
from policykd.spine.config.schema import Config
from policykd.students.view import View
from policykd.teachers.base import Teacher


def refuse_combinations(config: Config, teacher: Teacher) -> None:
    """Raises InputError with the reason and the alternative."""
    weigh_by(config.data.weighting, teacher.distribution)
    refuse_undefined(config.loss.kind, teacher.distribution)
    if config.augment.active:
        view = View.of(config.student.keys, teacher.observation_space, teacher.packing)
        plain = not (teacher.recurrent or config.student.wrappers or config.student.keys)
        refuse_augment(config.augment, config.student.kind, view.packing, plain_teacher=plain)
