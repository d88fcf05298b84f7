"""Fails when `policykd finetune` takes a setting for a student, or stops at one that is longer than a file's name."""

from __future__ import annotations

from policykd.cli.finetune_commands import student_among


def test_the_first_word_is_the_student_or_a_setting(tmp_path) -> None:
    student = tmp_path / "seed=3.safetensors"
    student.touch()
    long = f"env.kwargs={{{'a: 1, ' * 60}}}"
    assert student_among([str(student), "seed=3"]) == (str(student), ["seed=3"])
    assert student_among([long, "seed=3"]) == (None, [long, "seed=3"])
    assert student_among([]) == (None, [])
