"""Settings that make no sense with this teacher: refused before a run begins."""

from __future__ import annotations

from policykd.learn.rounds.labels import asides, attentions
from policykd.learn.updates.augment import refuse_augment
from policykd.loss.terms import refuse_undefined
from policykd.loss.weighting import weigh_by
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.students.view import View
from policykd.teachers.base import Teacher


def refuse_combinations(config: Config, teacher: Teacher) -> None:
    """Raises InputError with the reason and the alternative."""
    others = {"shrink": config.search, "collect": config.collect, "tune": config.tune, "finetune": config.finetune}
    command = next((name for name, section in others.items() if section is not None), None)
    for name, on in (("progressive", config.progressive.on), ("tasks", bool(config.tasks))):
        if on and command is not None:  # which that command has set, behind the back of the schema
            raise InputError(f"{name}: policykd {command} has no use for it: use policykd distill")
    if config.data.weighting != "auto":
        weigh_by(config.data.weighting, teacher.distribution)
    if config.loss.hard == "sample" and teacher.deterministic_teacher:
        raise InputError(
            f"loss.hard sample: {teacher.info.source} draws no actions ({teacher.info.algo} is deterministic), and the "
            "spread of its labels is ours and not its own: use loss.hard=mode"
        )
    refuse_undefined(config.loss.kind, teacher.distribution)
    asides(config, teacher)
    attentions(config, teacher)
    if config.augment.active:
        view = View.of(config.student.keys, teacher.observation_space, teacher.packing)
        plain = not (teacher.recurrent or config.student.wrappers or config.student.keys)
        refuse_augment(config.augment, config.student.kind, view.packing, plain_teacher=plain)
