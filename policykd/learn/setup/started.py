"""The student that a run starts from (`student.start`): found, and refused where it cannot fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

from policykd.learn.setup.sources import student_file
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.spaces import describe_space
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent
from policykd.students.spec import members_of
from policykd.students.transplant import shared_inputs, shared_outputs
from policykd.students.view import View
from policykd.teachers.base import Teacher


def start_file(config: Config) -> Path | None:
    """The file that `student.start` names, itself or as a run folder; None where members start as usual."""
    given = config.student.start
    return None if given is None else student_file(given) or Path(given)


def sha256_of_start(config: Config) -> str | None:
    """Of the file."""
    file = start_file(config)
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()


def open_start(config: Config) -> MlpStudent | None:
    """The student, or None; InputError for a file that is none, or not of kind mlp."""
    file = start_file(config)
    if file is None:
        return None
    old = load_student(file)
    if not isinstance(old, MlpStudent):
        raise InputError(f"{_who(config)}: a student of kind {old.kind}, and only one of kind mlp can be started from")
    return old


def refuse_unfit_start(config: Config, teacher: Teacher) -> None:
    """InputError where the student to start from has nothing in common with this run's, or the wrong layers."""
    old, who = open_start(config), _who(config)
    if old is None:
        return
    if old.activation != config.student.activation:
        raise InputError(f"{who}: its activation is {old.activation}: set student.activation={old.activation}")
    view = View.of(config.student.keys, teacher.observation_space, teacher.packing)
    if not len(shared_inputs(old.packing, view.packing)[0]):
        seen = describe_space(old.observation_space), describe_space(view.space)
        raise InputError(f"{who}: it observes {seen[0]}, expected something of {seen[1]}: leave student.start out")
    if not len(shared_outputs(old.distribution, teacher.distribution)[0]):
        kinds = type(old.distribution).__name__, type(teacher.distribution).__name__
        raise InputError(f"{who}: it acts by a {kinds[0]}, expected a {kinds[1]}: leave student.start out")
    if config.student.width != "auto":
        refuse_unfit_layers(config, old)


def refuse_unfit_layers(config: Config, old: MlpStudent) -> None:
    """InputError where a member has another depth, or is narrower and nothing is to be pruned."""
    hidden = [weight.shape[1] for weight, _ in old.layers[:-1]]
    who = f"{_who(config)}: its hidden layers are {' x '.join(map(str, hidden)) or 'none'}"
    for spec in members_of(config.student):
        if spec.depth != len(hidden):
            raise InputError(
                f"{who}, and a student of depth {spec.depth} cannot start from it: set student.depth={len(hidden)}"
            )
        if spec.width < max(hidden, default=0) and config.compress.prune == "none":
            raise InputError(
                f"{who}, and a student of width {spec.width} is narrower: set student.width to {max(hidden)} or more, "
                "or compress.prune=taylor to remove units"
            )


def _who(config: Config) -> str:
    return f"student.start {config.student.start}"
