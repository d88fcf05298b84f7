"""Searches among students with a memory or with keys: which sizes are tried, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.exports.of_student import graph_of
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.search.grid import blank, costs, fixed_bytes, grid, grid_settings, scouts, size_for
from policykd.search.latency import Latencies, refuse_impossible
from policykd.search.planning import _MACS, Known, _within_cost
from policykd.search.run import shrink_config
from policykd.search.standing import Candidate
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.types import Footprint, TeacherInfo
from policykd.students.gru import GruStudent
from policykd.students.spec import MemberSpec
from policykd.teachers.base import Teacher
from tests.support.core import FAMILIES, StubTeacher
from tests.support.standings import cartpole, put, session, standing

PAIR = spaces.Box(-9, 9, (2,), np.float32)
SPACE = spaces.Dict({"speed": PAIR, "place": PAIR, "count": spaces.Discrete(3)})


def gru(width: int, seed: int = 0) -> MemberSpec:
    return MemberSpec(1, width, seed, "gru")


@dataclass
class Keyed(StubTeacher):
    """Sees a Dict of 7 features, and has a network of this many parameters."""

    info: TeacherInfo = field(default_factory=lambda: cartpole().info)


def keyed(params: int = 0) -> Any:
    distribution, actions = FAMILIES["categorical"]
    info = replace(cartpole().info, footprint=Footprint(params, 0, params), layers=((7, 64), (64, 3)))
    return Keyed(lambda x: x, distribution, actions, SPACE, info=info)


def grid_of(teacher: Teacher, student: dict[str, Any], **search: Any) -> list[MemberSpec]:
    config = shrink_config(Config.model_validate({"student": student, "search": search}))
    widths, depths = grid_settings(config, teacher)
    config = config.model_copy(update={"student": config.student.model_copy(update={"width": widths, "depth": depths})})
    return grid(config, teacher, size_for(teacher, config.student.keys))


def of_size(params: int) -> Teacher:
    return cartpole().with_info(footprint=Footprint(params, 0, params))


def test_memories_go_from_one_number_up_to_the_teacher() -> None:
    specs = grid_of(of_size(4610), {"kind": "gru"})
    assert specs == [gru(width) for width in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)]
    assert grid_of(of_size(24), {"kind": "gru"}) == [gru(1)] and gru(1).footprint(4, 2).params == 23
    assert grid_of(of_size(5), {"kind": "gru"}) == [gru(1)], "the smallest, where none is smaller than the teacher"
    assert max(spec.width for spec in grid_of(of_size(0), {"kind": "gru"})) == 64, "of a function nothing is known"
    assert grid_of(of_size(4610), {"kind": "gru", "width": [5, 9]}) == [gru(5), gru(9)]
    assert grid_of(of_size(4610), {"kind": "gru"}, max_params=100) == [gru(1), gru(2), gru(3)]
    with pytest.raises(InputError, match=r"search\.max_params: no student is so small; .* has 23 parameters"):
        grid_of(of_size(4610), {"kind": "gru"}, max_params=22)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
@pytest.mark.parametrize(("keys", "inputs"), [(None, 7), (["place"], 2), (["count", "speed"], 5)])
def test_sizes_follow_what_the_student_sees(kind: str, keys: Sequence[str] | None, inputs: int) -> None:
    student = {"kind": kind, "width": [3], "depth": [1], **({} if keys is None else {"keys": keys})}
    (spec,) = grid_of(keyed(), student)
    one = blank(keyed(), spec, "tanh", keys)
    assert one.footprint == spec.footprint(inputs, 3)
    assert one.footprint.constants == 2 * inputs
    assert size_for(keyed(), keys)(spec) == one.footprint.params
    assert one.packing.n_features == inputs
    small, large = (grid_of(keyed(100), {**student, "width": "auto", "keys": k}) for k in (["place"], None))
    assert max(s.width for s in small) > max(s.width for s in large), "who sees less may be wider"


def test_the_exported_constants_are_those_of_the_keys(tmp_path: Path) -> None:
    one = blank(keyed(), MemberSpec(1, 3), "tanh", ["place"])
    written = c99.write(graph_of(one), tmp_path, Options())["flash_bytes"]
    assert written == 4 * one.footprint.params + fixed_bytes(keyed(), "mlp", ["place"])
    assert fixed_bytes(keyed(), "gru", ["place"]) >= 4 * 2 * 2


def test_a_generation_of_memories_stays_cheap(tmp_path: Path) -> None:
    wide = grid_of(of_size(10**6), {"kind": "gru"})
    found = scouts(wide, costs(4, 2, 12_000))
    assert [s.width for s in found] == [1, 2, 4, 8, 16, 32, 64], "127 numbers together"
    known = Known(wide, size_for(cartpole(), None), standing(tmp_path))
    later = _within_cost([gru(w) for w in (8, 16)], known, 3)
    assert sorted(later) == sorted([gru(w, s) for w in (8, 16) for s in range(3)]), "72 numbers"
    assert sum(s.width for s in _within_cost([gru(w) for w in (24, 32)], known, 3)) <= 128
    mlp = MemberSpec(2, 8)
    assert costs(4, 2, _MACS)(mlp) == mlp.footprint(4, 2).macs


def test_a_step_of_a_memory_is_measured_and_bounded(tmp_path: Path) -> None:
    student = blank(cartpole(), gru(3), "tanh")
    assert isinstance(student, GruStudent)
    one = session(tmp_path, student={"kind": "gru", "width": [3]})
    measured = Latencies(one).of(Candidate(gru(3), 0, 0, student))
    assert measured is not None and 0 < measured < 1000
    assert one.folder.load_facts("latency") == {"1x3": measured}
    with pytest.raises(InputError, match=r"search\.max_us: found 1e-06, but an action of the smallest"):
        refuse_impossible(cartpole(), gru(1), "tanh", 1e-6)


def test_weights_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    found = standing(tmp_path)
    one = blank(cartpole(), gru(3), "tanh")
    candidate = Candidate(gru(3, 2), 7, 100, one)
    other = put(found, MemberSpec(1, 3, 2), 1.0, index=7)
    tensors = {**candidate.tensors(), **other.tensors()}
    assert all(name.startswith("candidate.d1-w3-s2-r7.") for name in tensors)
    assert {"candidate.d1-w3-s2-r7.gru.input", "candidate.d1-w3-s2-r7.log_std"} <= set(tensors)
    for each in (candidate, other):
        back = Candidate.weights_in(each.tensors(), each.key)
        expected = {**each.student.weights(), "log_std": each.student.log_std}
        assert back.keys() == expected.keys()
        assert all(torch.equal(torch.from_numpy(back[name]), value) for name, value in expected.items())


def test_a_spec_names_its_axes() -> None:
    spec = MemberSpec(2, 16, 1)
    assert (spec.architecture, spec.name, spec.row) == ((2, 16), "d2-w16-s1", [2, 16, 1])
    assert MemberSpec.from_row([2, 16, 1], "mlp") == spec
    assert MemberSpec.from_row([1, 4, 0], "gru") == gru(4)
    assert MemberSpec(1, 4).within(MemberSpec(1, 4, 2)) and MemberSpec(1, 4).within(MemberSpec(1, 8))
    assert not MemberSpec(1, 4).within(MemberSpec(2, 8)) and not MemberSpec(1, 8).within(MemberSpec(1, 4))
    with pytest.raises(ValueError, match="zip"):
        MemberSpec.from_row([1, 4], "gru")
