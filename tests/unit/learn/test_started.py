"""Fails when a student that cannot be started from is taken, or is refused without the reason and what to do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from gymnasium import spaces

from policykd.learn.setup.started import refuse_unfit_start
from policykd.spine.artifact import save_artifact
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError
from policykd.students.mlp import MlpStudent
from policykd.teachers.load import load_teacher
from tests.support.core import student


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("builtin:cartpole")


def fitting() -> MlpStudent:
    """Acts as on CartPole; layers of 6 and 5."""
    return student("categorical")


def refuse(own: MlpStudent, overrides: list[str], teacher, folder: Path) -> None:
    save_artifact(folder / "student.safetensors", *own.to_artifact())
    refuse_unfit_start(load_config(None, [f"student.start={folder}", *overrides]), teacher)


def test_what_fits_is_taken(teacher, tmp_path) -> None:
    refuse(fitting(), ["student.width=6"], teacher, tmp_path)
    refuse(fitting(), ["student.width=[6, 8]"], teacher, tmp_path)
    refuse(fitting(), ["student.width=2", "compress.prune=variance"], teacher, tmp_path)


@pytest.mark.parametrize(
    ("name", "overrides", "line"),
    [
        ("categorical", ["student.width=5"], "hidden layers are 6 x 5, and a student of width 5 is narrower: set"),
        ("categorical", ["student.width=[4, 8]"], "compress.prune=taylor to remove units"),
        ("categorical", ["student.width=8", "student.depth=[1, 2]"], "of depth 1 cannot start from it: set"),
        ("categorical", ["student.width=8", "student.activation=relu"], "set student.activation=tanh"),
        ("gaussian", ["student.width=8"], "acts by a DiagGaussian, expected a Categorical"),
    ],
)
def test_what_does_not_fit_is_refused(name, overrides, line, teacher, tmp_path) -> None:
    with pytest.raises(InputError, match=re.escape(line)) as caught:
        refuse(student(name), overrides, teacher, tmp_path)
    assert str(caught.value).startswith(f"student.start {tmp_path}: ") and "\n" not in str(caught.value)


def test_nothing_in_common(teacher, tmp_path) -> None:
    own = replace(student("categorical"), observation_space=spaces.Dict({"a": spaces.Box(-1, 1, (3,))}))
    with pytest.raises(InputError, match="it observes .*, expected something of"):
        refuse(own, ["student.width=8"], teacher, tmp_path)


def test_no_student_there(teacher, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no such file; give a student\.safetensors"):
        refuse_unfit_start(load_config(None, [f"student.start={tmp_path / 'none'}"]), teacher)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["compress.prune=taylor"], "there is nothing to remove units from"),
        (["student.start=x", "student.seeds=2"], "set student.seeds to 1"),
        (["student.start=x", "student.kind=gru"], "only students of kind mlp start from another one"),
        (["compress.int8=aware", "student.kind=gru"], "only students of kind mlp have weights of 8 bits"),
        (["compress.int8=after", "search.max_bytes=4000"], "belong to a distillation of one family"),
    ],
)
def test_combinations_are_refused_as_they_are_read(overrides, line) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        load_config(None, overrides)
