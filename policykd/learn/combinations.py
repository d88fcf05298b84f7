"""Settings that make no sense with this teacher: refused before a run begins."""

from __future__ import annotations

from policykd.loss.terms import refuse_undefined
from policykd.loss.weighting import weigh_by
from policykd.spine.config.schema import Config
from policykd.teachers.base import Teacher


def refuse_combinations(config: Config, teacher: Teacher) -> None:
    """Raises InputError with the reason and the alternative."""
    weigh_by(config.data.weighting, teacher.distribution)
    refuse_undefined(config.loss.kind, teacher.distribution)
