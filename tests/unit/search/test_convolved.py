"""Fails when a search among students with convolutions tries what it should not, or does not know what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policykd.exports.graph import Feed
from policykd.exports.of_student import graph_of, split
from policykd.exports.reference import run
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.search.grid import (
    SCOUT_MACS,
    blank,
    costs,
    fixed_bytes,
    grid,
    scouts,
    size_for,
    view_of,
    with_grid_settings,
)
from policykd.search.run import shrink_config
from policykd.spine.config.schema import Config
from policykd.spine.types import Footprint
from policykd.students.spec import MemberSpec
from policykd.teachers.base import Teacher
from tests.support.pictures import finder


def of_size(params: int, kind: str = "cnn") -> Teacher:
    return finder(mixed=kind == "multi").with_info(footprint=Footprint(params, 0, params))


def grid_of(teacher: Teacher, student: dict[str, Any], **search: Any) -> list[MemberSpec]:
    config = shrink_config(Config.model_validate({"student": student, "search": search}))
    section = with_grid_settings(config.student, config, teacher)
    return grid(config.model_copy(update={"student": section}), teacher, size_for(teacher, section.keys))


def test_channels_go_from_one_up_to_the_teacher() -> None:
    teacher = of_size(5_000)
    specs = grid_of(teacher, {"kind": "cnn"})
    sizes = [size_for(teacher, None)(spec) for spec in specs]
    assert sizes == sorted(sizes) and max(sizes) < 5_000
    assert {spec.channels for spec in specs} >= {1, 2, 3, 4}
    assert {spec.width for spec in specs} == {0, 8, 16, 32} and {spec.kind for spec in specs} == {"cnn"}
    listed = grid_of(teacher, {"kind": "cnn", "channels": [2, 5], "width": [4], "depth": [1]})
    assert [(s.channels, s.width, s.depth) for s in listed] == [(2, 4, 1), (5, 4, 1)]
    assert len(grid_of(of_size(1), {"kind": "cnn"})) == 1, "the smallest, where none is smaller than the teacher"


@pytest.mark.parametrize("conv", ["nature", "impala"])
@pytest.mark.parametrize("kind", ["cnn", "multi"])
def test_a_student_that_knows_nothing_has_the_size_that_was_said(kind: str, conv: str, tmp_path: Path) -> None:
    teacher = of_size(0, kind)
    spec = grid_of(teacher, {"kind": kind, "conv": conv, "channels": [3], "width": [4], "depth": [1]})[0]
    one = blank(teacher, spec, "relu")
    assert one.footprint == spec.footprint(view_of(teacher, None).packing, teacher.distribution.n_means)
    graph = graph_of(one)
    assert graph.footprint == one.footprint
    written = c99.write(graph, tmp_path, Options())["flash_bytes"]
    assert written == 4 * one.footprint.params + fixed_bytes(teacher, one.kind, None, spec.conv)
    space = one.observation_space
    space.seed(0)
    packed = np.stack([one.packing.pack(space.sample()) for _ in range(9)])
    feed = Feed(split(one.packing, packed))
    expected = one.distribution_params(torch.from_numpy(packed)).numpy()[:, : graph.head.size]
    np.testing.assert_allclose(run(graph, feed).outputs, expected, rtol=1e-4, atol=1e-3)


def test_the_first_generation_stays_cheap() -> None:
    teacher = of_size(10**6)
    specs = grid_of(teacher, {"kind": "cnn"})
    packing = view_of(teacher, None).packing
    first = scouts(specs, costs(packing, 4, SCOUT_MACS))
    assert 2 <= len(first) < len(specs)
    assert sum(spec.footprint(packing, 4).macs for spec in first) <= 400_000
    own = grid_of(teacher, {"kind": "cnn", "width": [24, 48], "depth": [1]})
    assert len(own) > 12 and len(scouts(own, costs(packing, 4, SCOUT_MACS))) > 2, "widths of the user's own"
