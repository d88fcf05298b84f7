"""The teacher that a configuration names, alone or with others as an ensemble, and its name as a run keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.ensemble import EnsembleTeacher, ensemble_of, teachers_of
from policykd.teachers.load import HUB, load_teacher

_LIVE = "live "


def open_teacher(config: Config, given: Any = None) -> Teacher:
    """The teacher of `config`, or the live one that is `given`, or several of them as a list; InputError for a live one
    that is missing. Weights by return are equal until `policykd.learn.setup.weighing` has settled them."""
    if isinstance(given, EnsembleTeacher):
        raise InputError("teacher is an ensemble: give its teachers as a list, and ensemble.how of the configuration")
    sources = list(given) if isinstance(given, list | tuple) else [config.teacher if given is None else given]
    ensemble = config.ensemble
    if not isinstance(given, list | tuple):
        sources += ensemble.teachers
    for name, source in zip((config.teacher, *ensemble.teachers), sources, strict=False):
        if name.startswith(_LIVE) and source == name:
            raise InputError(
                f"teacher {name!r}: it was a live model; give it again: policykd.resume(folder, teacher=model), or "
                "of an ensemble all of them, teacher=[...]"
            )
    statistics = [config.vec_normalize, *[None] * (len(sources) - 1)]
    teachers = [
        load_teacher(source, env_id=config.env.id, vec_normalize=own, trust=config.trust)
        for source, own in zip(sources, statistics, strict=True)
    ]
    weights = ensemble.weights if isinstance(ensemble.weights, list) else [1.0] * len(teachers)
    if len(weights) != len(teachers):
        raise InputError(f"ensemble.weights has {len(weights)} numbers for {len(teachers)} teachers: give one for each")
    if len(teachers) == 1:
        return teachers[0]
    return ensemble_of(teachers, ensemble.how, weights)


def named_places(config: Config, opened: Teacher, *, live: bool) -> dict[str, Any]:
    """The keys of `config` that say where the teachers are, so that the run can be repeated and resumed from any
    folder, and never with others than these; `live`: they were given as objects."""
    teachers = teachers_of(opened)
    listed = [config.teacher, *config.ensemble.teachers] if not live else [""] * len(teachers)
    places = []
    for name, teacher in zip(listed, teachers, strict=True):
        pinned = live or name.startswith(HUB)  # to the commit that was opened
        places.append(_absolute(teacher.info.source if pinned else name))
    others = config.ensemble.model_copy(update={"teachers": places[1:]})
    student = config.student.model_copy(update={"start": _absolute(config.student.start)})
    vec_normalize = _absolute(config.vec_normalize)
    return {"teacher": places[0], "ensemble": others, "vec_normalize": vec_normalize, "student": student}


def _absolute(source: str | None) -> str | None:
    return str(Path(source).absolute()) if source is not None and Path(source).exists() else source
