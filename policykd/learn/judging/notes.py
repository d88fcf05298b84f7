"""What a run says of itself once, in one line each: told while it runs, and kept in result.json."""

from __future__ import annotations

from policykd.learn.rounds.families import sees_images
from policykd.spine.config.schema import Config
from policykd.spine.wrappers import parsed
from policykd.students.spec import MemberSpec, members_of
from policykd.students.view import View
from policykd.teachers.base import Teacher


def notes_of(config: Config, teacher: Teacher) -> list[str]:
    """The notes of a run whose configuration has no `auto` left."""
    return _views(config) + _sizes(config, teacher)


def _views(config: Config) -> list[str]:
    if not config.student.wrappers:
        return []
    own, theirs = (
        ", ".join(parsed(entry)[0] for entry in entries) or "no wrapper"
        for entries in (config.student.wrappers, config.env.wrappers)
    )
    return [f"student: sees the environment through {own}, its teacher through {theirs}"]


def _sizes(config: Config, teacher: Teacher) -> list[str]:
    view = View.of(config.student.keys, teacher.observation_space, teacher.packing)
    n_means = teacher.distribution.n_means

    def params(spec: MemberSpec) -> int:
        return spec.footprint(view.packing, n_means).params

    smallest = min(map(params, members_of(config.student)))
    theirs = teacher.info.footprint.params
    if not theirs or smallest < theirs:  # nothing is known of a function's size
        return []
    line = f"student: the smallest has {smallest:,} parameters, no fewer than the teacher's {theirs:,}"
    if sees_images(config.student.kind):
        return [f"{line}: choose a smaller student.channels, student.width or student.depth"]
    if config.student.kind == "tree":
        return [f"{line}: choose fewer student.leaves"]
    if config.student.kind == "gru":
        return [f"{line}: choose a smaller student.width"]
    linear = params(MemberSpec(0, 0, 0))
    if linear >= theirs:
        return [f"{line}, and none can be smaller: a linear one has {linear:,}"]
    return [f"{line}, so nothing gets smaller: choose a smaller student.width, or student.depth=0 ({linear:,})"]
