"""Fails when the curves of a member have another name than docs/tensorboard.md says, or lose it on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policykd.learn.rounds.states import start
from policykd.learn.rounds.trace import member_names
from policykd.students.spec import MemberSpec
from tests.support.pictures import finder
from tests.support.standings import session

MLP = MemberSpec(2, 16, 3)
SPECS: dict[str, tuple[dict[str, Any], MemberSpec, str]] = {
    "mlp": ({}, MLP, "/d2_w16_s3"),
    "linear": ({}, MemberSpec(0, 0), "/d0_w0_s0"),
    "gru": ({"kind": "gru"}, MemberSpec(1, 4, 1, "gru"), "/d1_w4_s1"),
    "cnn": ({"kind": "cnn"}, MemberSpec(1, 32, 0, "cnn", 8, "nature"), "/c8_d1_w32_s0"),
}


@pytest.mark.parametrize("name", SPECS)
def test_curves_are_named_by_architecture_and_seed(name: str, tmp_path: Path) -> None:
    student, spec, expected = SPECS[name]
    update = {"n_updates": 1, "batch_size": 8}
    one = session(tmp_path, finder() if name == "cnn" else None, student=student, update=update, device="cpu")
    both = start(one, [replace(spec, seed=9), spec], 2)
    assert member_names(both)[0] == expected
    both.shed([0])
    assert member_names(both) == [expected], "the last member that a search goes on with keeps its name"
    alone = replace(one, config=one.config.model_copy(update={"search": None}))
    assert member_names(start(alone, [spec], 2)) == [""], "a single student has no need of one"
