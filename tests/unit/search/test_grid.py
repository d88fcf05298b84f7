"""Which architectures are tried: within the limits, none as large as the teacher; bytes are those of the exported C."""

from __future__ import annotations

import pytest

from policykd.exports.of_student import graph_of
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.search.grid import above, between, fixed_bytes, grid, grid_settings, scouts, size_of, with_seeds
from policykd.search.run import shrink_config
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.types import Footprint
from policykd.students.spec import MemberSpec
from tests.support.core import FAMILIES, StubTeacher, student
from tests.support.standings import blank, cartpole

SIZE = size_of(4, 2)


def with_network(*layers, params=None):
    """The CartPole teacher as if its network were of these layers."""
    counted = sum(i * o + o for i, o in layers) if params is None else params
    return cartpole().with_info(layers=tuple(layers), footprint=Footprint(counted, 0, counted))


def grid_of(teacher, student=None, **search):
    config = shrink_config(Config.model_validate({"student": student or {}, "search": search}))
    widths, depths = grid_settings(config, teacher)
    config = config.model_copy(update={"student": config.student.model_copy(update={"width": widths, "depth": depths})})
    return grid(config, teacher, SIZE)


def test_it_goes_from_a_linear_policy_up_to_the_teacher():
    teacher = with_network((4, 64), (64, 64), (64, 2))
    specs = grid_of(teacher)
    sizes = [SIZE(spec) for spec in specs]
    assert specs[0] == MemberSpec(1, 1) or specs[0] == MemberSpec(0, 0)
    assert MemberSpec(0, 0) in specs
    assert sizes == sorted(sizes)
    assert max(sizes) < teacher.info.footprint.params
    assert len(set(specs)) == len(specs)
    assert max(spec.width for spec in specs) <= 64
    assert {spec.depth for spec in specs} == {0, 1, 2}
    assert {spec.width for spec in specs if spec.depth == 0} == {0}, "a linear policy has no width, and is there once"


def test_a_linear_teacher():
    """ARS on 11 inputs and 3 actions: 33 weights, no bias. A linear student has 36 numbers, so only bottlenecks fit."""
    teacher = with_network((11, 3), params=33)
    size = size_of(11, 3)
    config = shrink_config(Config())
    widths, depths = grid_settings(config, teacher)
    config = config.model_copy(update={"student": config.student.model_copy(update={"width": widths, "depth": depths})})
    specs = grid(config, teacher, size)
    assert [(spec.depth, spec.width, size(spec)) for spec in specs] == [(1, 1, 18), (2, 1, 20)]


def test_a_teacher_smaller_than_every_student_gets_the_smallest():
    assert grid_of(with_network((4, 2), params=3)) == [MemberSpec(1, 1)]


def test_a_teacher_that_is_a_function_has_no_size_to_stay_below():
    specs = grid_of(with_network(params=0))
    assert max(spec.width for spec in specs) == 64


def test_widths_and_depths_that_the_user_lists_are_the_grid():
    specs = grid_of(with_network((4, 64), (64, 64), (64, 2)), {"width": [5, 30], "depth": [1, 3]})
    assert specs == [MemberSpec(1, 5), MemberSpec(3, 5), MemberSpec(1, 30), MemberSpec(3, 30)]
    assert grid_of(with_network((4, 64), (64, 2)), {"width": 7, "depth": 1}) == [MemberSpec(1, 7)]
    assert grid_of(cartpole(), {"width": [8, 16], "depth": 0}) == [MemberSpec(0, 0)]


@pytest.mark.parametrize("most", [9, 10, 11, 100, 101])
def test_max_params(most):
    specs = grid_of(cartpole(), max_params=most)
    assert specs == [spec for spec in grid_of(cartpole()) if SIZE(spec) <= most]
    assert specs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hidden", [(), (3,), (16, 16)])
def test_all_but_the_weights_is_known_beforehand(family, hidden, tmp_path):
    """For every kind of action."""
    distribution, space = FAMILIES[family]
    one = student(family, hidden=hidden)
    teacher = StubTeacher(lambda x: x, distribution, space, one.observation_space)
    facts = c99.write(graph_of(one), tmp_path, Options())
    assert facts["flash_bytes"] == 4 * one.footprint.params + fixed_bytes(teacher)


@pytest.mark.parametrize("spec", [MemberSpec(0, 0), MemberSpec(1, 3), MemberSpec(2, 16)])
def test_max_bytes_is_what_the_exported_c_says(spec, tmp_path):
    bytes_ = c99.write(graph_of(blank(spec)), tmp_path, Options())["flash_bytes"]
    student = {"width": max(spec.width, 1), "depth": spec.depth}
    assert grid_of(cartpole(), student, max_bytes=bytes_) == [spec]
    with pytest.raises(InputError, match=rf"search\.max_bytes: .*{bytes_:,} bytes"):
        grid_of(cartpole(), student, max_bytes=bytes_ - 1)


def test_limits_that_leave_nobody_are_named():
    with pytest.raises(InputError, match=r"search\.max_params: no student is so small; .* has 9 parameters"):
        grid_of(cartpole(), max_params=8, max_bytes=10_000)
    with pytest.raises(InputError, match=r"search\.max_bytes: no student is so small"):
        grid_of(cartpole(), max_params=100, max_bytes=40)


def test_seeds_belong_to_the_search():
    with pytest.raises(InputError, match=r"student\.seeds 2: .* set search\.seeds"):
        shrink_config(Config.model_validate({"student": {"seeds": 2}}))


@pytest.mark.parametrize("most", [1000, 400])
def test_the_seeds_of_the_gate_chose_nothing(most):
    """Three attempts of up to 1000 episodes from 10,000 on, and selection on 96 seeds."""
    gate = {"most_episodes": most, "keep": 0.9}
    for first, shared in ((10_000 + 3 * most, False), (9_999 + 3 * most, True), (9_904, False), (9_905, True)):
        config = Config.model_validate(
            {"gate": gate, "evaluate": {"select_first_seed": first, "episodes": 2}}
            if first > 10_000
            else {"gate": gate, "evaluate": {"select_first_seed": first, "select_episodes": 4}}
        )
        if shared:
            with pytest.raises(InputError, match="overlap the seeds of the gate"):
                shrink_config(config)
        else:
            assert shrink_config(config).gate.keep == 0.9
    last = Config.model_validate({"evaluate": {"first_seed": 2**31 - 200}})
    with pytest.raises(InputError, match=r"evaluate\.first_seed .* not below 2\^31"):
        shrink_config(last)


def test_scouts_are_every_second_step_and_cheap():
    specs = grid_of(with_network((4, 64), (64, 64), (64, 2)))
    found = scouts(specs, lambda spec: spec.footprint(4, 2).macs)
    assert set(found) < set(specs)
    assert sum(spec.footprint(4, 2).macs for spec in found) <= 12_000
    assert found[0] == specs[0] or found[0].depth == 0
    assert scouts(specs[:3], lambda spec: 10**9) == specs[:1], "one at least"


def test_between_above_and_seeds():
    specs = grid_of(with_network((4, 64), (64, 64), (64, 2)))
    inner = between(specs, 20, 60, SIZE)
    assert [SIZE(s) for s in inner] == sorted((SIZE(s) for s in specs if 20 < SIZE(s) < 60), reverse=True)
    upper = above(specs, 100, SIZE, 4)
    larger = [s for s in specs if SIZE(s) > 100]
    assert len(upper) == 4
    assert (upper[0], upper[-1]) == (larger[0], larger[-1])
    assert above(specs, SIZE(specs[-1]), SIZE, 4) == []
    assert len(above(specs, 0, SIZE, 1)) == 1
    assert with_seeds([MemberSpec(1, 4)], {(1, 4): 1}, 3) == [MemberSpec(1, 4, 1), MemberSpec(1, 4, 2)]
