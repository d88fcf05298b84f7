"""What is trained next, played through on made-up retentions: the border is found, nobody is trained twice, it ends."""

from __future__ import annotations

import pytest

from policykd.search.generation import Plan
from policykd.search.grid import scouts, size_of
from policykd.search.planning import Known, next_plan
from policykd.spine.config.judging import SearchConfig
from policykd.students.spec import MemberSpec
from tests.support.standings import put, standing

SIZE = size_of(4, 2)
SPECS = sorted(
    {MemberSpec(d, w if d else 0) for d in (0, 1, 2) for w in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)}, key=SIZE
)
ROUNDS = 16


def search(folder, retention, specs=SPECS, rungs=True, **settings):
    """Every plan of a search whose members have `retention`(spec); those that pass end a generation, as `settle` does,
    after which larger ones have their rung's eight episodes only."""
    found = standing(folder)
    config = SearchConfig(**settings)
    known = Known(specs, SIZE, found)
    plan = Plan(0, tuple(sorted(scouts(specs, lambda s: s.footprint(4, 2).macs))), 0, ROUNDS)
    plans = []
    while plan is not None:
        plans.append(plan)
        passed = False
        for spec in sorted(plan.specs, key=SIZE):
            put(found, spec, retention(spec), 8 if passed else 96, index=plan.end - 1)
            passed = passed or retention(spec) >= 0.98
        plan = next_plan(known, plan, config, ROUNDS)
    return plans, known


BORDERS = {
    "from the smallest on": lambda spec: 1.0,
    "at 20 parameters": lambda spec: 1.0 if SIZE(spec) >= 20 else 0.8,
    "at 100 parameters": lambda spec: 1.0 if SIZE(spec) >= 100 else 0.9,
    "one depth only": lambda spec: 1.0 if spec.depth == 1 and spec.width >= 6 else 0.5,
    "a lucky seed": lambda spec: 1.0 if SIZE(spec) >= 200 or (SIZE(spec) > 50 and spec.seed == 2) else 0.93,
    "the largest only": lambda spec: 1.0 if spec == SPECS[-1] else 0.9,
    "nobody": lambda spec: 0.9,
    "hopeless": lambda spec: 0.1,
}


@pytest.mark.parametrize("generations", [1, 2, 4, 12])
@pytest.mark.parametrize("name", BORDERS)
def test_nobody_is_trained_twice_and_it_ends(tmp_path, name, generations):
    plans, _ = search(tmp_path, BORDERS[name], generations=generations, seeds=3)
    assert len(plans) <= generations
    trained = [spec for plan in plans for spec in plan.specs]
    assert len(set(trained)) == len(trained)
    assert all(plan.specs and plan.specs == tuple(sorted(plan.specs)) for plan in plans)
    assert {(s.depth, s.width) for s in trained} <= {(s.depth, s.width) for s in SPECS}
    assert max(s.seed for s in trained) < 3
    for i, plan in enumerate(plans):
        assert plan.number == i
        assert plan.first == (plans[i - 1].end if i else 0)


@pytest.mark.parametrize("name", ["at 20 parameters", "at 100 parameters"])
def test_the_border_is_found(tmp_path, name):
    plans, known = search(tmp_path, BORDERS[name], generations=12, seeds=2)
    holds = [s for s in SPECS if BORDERS[name](s) == 1.0]
    assert SIZE(known.passing[0]) == SIZE(holds[0])
    assert len(plans) < 12, "and then it ends"
    below = [s for s in SPECS if SIZE(s) < SIZE(holds[0]) and not known.hopeless(s)]
    assert all(known.tries[s.depth, s.width] == 2 for s in below), "other seeds of those that failed were tried"


def test_later_generations_are_shorter_unless_nothing_passed(tmp_path):
    plans, _ = search(tmp_path / "a", BORDERS["at 100 parameters"], generations=4, refine_rounds=8)
    assert {plan.rounds for plan in plans[1:]} == {8}
    plans, _ = search(tmp_path / "b", BORDERS["nobody"], generations=3, refine_rounds=8)
    assert {plan.rounds for plan in plans} == {ROUNDS}


def test_where_nothing_passes_it_goes_up_to_the_largest(tmp_path):
    specs = sorted({*SPECS, *(MemberSpec(d, w) for d in (1, 2) for w in (128, 256))}, key=SIZE)
    plans, known = search(tmp_path, lambda s: 1.0 if (s.depth, s.width) == (2, 256) else 0.9, specs, generations=2)
    largest = [max(map(SIZE, plan.specs)) for plan in plans]
    assert largest == [SIZE(MemberSpec(2, 64)), SIZE(specs[-1])]
    assert min(map(SIZE, plans[1].specs)) > largest[0]
    assert known.passing == [MemberSpec(2, 256)]


def test_the_smallest_that_passes_ends_it_at_once(tmp_path):
    plans, known = search(tmp_path, BORDERS["from the smallest on"], generations=6)
    assert len(plans) == 1
    assert known.passing[0] in (SPECS[0], MemberSpec(0, 0)) or SIZE(known.passing[0]) == SIZE(SPECS[0])


def test_other_seeds_of_the_hopeless_are_not_tried(tmp_path):
    plans, known = search(tmp_path, lambda s: 1.0 if SIZE(s) >= 100 else 0.1, generations=12, seeds=3)
    had: set[tuple[int, int]] = set()
    for plan in plans:
        now = {(s.depth, s.width) for s in plan.specs}
        assert not now & had
        had |= now
    assert known.hopeless(MemberSpec(1, 2))


def test_who_was_dropped_passes_nothing(tmp_path):
    found = standing(tmp_path)
    small, large = MemberSpec(1, 2), MemberSpec(1, 8)
    put(found, small, 1.0)
    put(found, large, 1.0)
    known = Known(SPECS, SIZE, found)
    assert known.passing == [small, large]
    found.dropped.add(small)
    assert known.passing == [large]
