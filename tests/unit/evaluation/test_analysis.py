"""Fails when disagreement is put into the wrong bin or under the wrong name, when noise outranks a real difference, or
when an observation space, a Q-value teacher or a memory ends in a traceback."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.evaluation.agreement import agreement_on
from policykd.evaluation.analysis import MOST_FEATURES, analysis
from tests.support.core import StubTeacher

RNG = np.random.default_rng(0)


def _first(observation: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros(len(observation))
    return torch.stack([zero + 2.0, zero, zero], -1)


def _differs_where(column: int, above: float) -> Any:
    """Chooses action 1 where a number is above a bound, else action 0, as `_first` does."""

    def logits(observation: torch.Tensor) -> torch.Tensor:
        params = _first(observation)
        params[:, 1] = torch.where(observation.flatten(1)[:, column] > above, 5.0, 0.0)
        return params

    return logits


def _pair(space: spaces.Space[Any], column: int, above: float, **teacher: Any) -> tuple[StubTeacher, StubTeacher]:
    return StubTeacher(_first, observation_space=space, **teacher), StubTeacher(
        _differs_where(column, above), observation_space=space
    )


def _checked(document: dict[str, Any], states: int) -> list[dict[str, Any]]:
    json.dumps(document, allow_nan=False)
    assert document["states"] == states
    for entry in document["disagreement"]:
        n = len(entry["share"])
        assert len(entry["count"]) == n and len(entry["edges"]) == n + 1
        assert sum(entry["count"]) == states, entry["name"]
        assert entry["edges"] == sorted(entry["edges"])
        assert entry["values"] is None or len(entry["values"]) == n
    return document["disagreement"]


def test_the_feature_that_explains_it_comes_first() -> None:
    seen = RNG.normal(size=(5000, 4)).astype("f4")
    seen[:, 3] = 7.0  # constant
    teacher, student = _pair(spaces.Box(-9, 9, (4,), np.float32), 2, 1.0)
    document = analysis(teacher, student, seen, episodes=12)
    found = _checked(document, 5000)
    assert found[0]["name"] == "obs[2]" and document["episodes"] == 12
    assert {entry["name"] for entry in found} == {f"obs[{i}]" for i in range(4)}
    first = found[0]
    assert first["share"][:8] == [0] * 8 and first["share"][9] == 1 and 0 < first["share"][8] < 1
    whole = sum(s * c for s, c in zip(first["share"], first["count"], strict=True)) / 5000
    assert whole == pytest.approx(1 - agreement_on(teacher, student, seen)) == document["differ"]
    assert max(entry["spread"] for entry in found[1:]) < 0.1 * first["spread"], "noise is no explanation"
    (constant,) = (entry for entry in found if entry["name"] == "obs[3]")
    assert constant["values"] == [7.0] and constant["spread"] == 0


def test_entropy_is_the_teachers() -> None:
    seen = RNG.normal(size=(400, 2)).astype("f4")
    teacher, student = _pair(spaces.Box(-9, 9, (2,), np.float32), 0, 0.0)
    p = torch.softmax(torch.tensor([2.0, 0.0, 0.0]), 0)
    entropy = analysis(teacher, student, seen)["entropy"]
    assert entropy["mean"] == pytest.approx(float(-(p * p.log()).sum()), abs=1e-5)
    assert entropy["quantiles"]["0.5"] == pytest.approx(entropy["mean"], abs=1e-5)
    assert sum(entropy["histogram"]["count"]) == 400


@pytest.mark.parametrize("kind", ["value_teacher", "deterministic_teacher"])
def test_a_teacher_without_a_distribution_of_its_own_has_no_entropy(kind: str) -> None:
    seen = RNG.normal(size=(60, 2)).astype("f4")
    teacher, student = _pair(spaces.Box(-9, 9, (2,), np.float32), 0, 0.0, **{kind: True})
    document = analysis(teacher, student, seen)
    assert document["entropy"] is None and document["disagreement"][0]["name"] == "obs[0]"


def test_masks_bind_both() -> None:
    seen = RNG.normal(size=(300, 2)).astype("f4")
    teacher, student = _pair(spaces.Box(-9, 9, (2,), np.float32), 0, 0.0)
    masks = np.tile(np.array([True, False, True]), (300, 1))
    document = analysis(teacher, student, seen, masks)
    assert all(share == 0 for entry in _checked(document, 300) for share in entry["share"])
    assert document["entropy"]["mean"] < analysis(teacher, student, seen)["entropy"]["mean"]


def test_names_of_dict_entries_and_one_bin_per_choice() -> None:
    space = spaces.Dict({"position": spaces.Box(-1, 1, (2,), np.float32), "gear": spaces.Discrete(5, start=2)})
    gear = RNG.integers(2, 7, 900)
    teacher, student = _pair(space, 0, 5.5)
    batch = {"position": RNG.uniform(-1, 1, (900, 2)).astype("f4"), "gear": gear}
    found = _checked(analysis(teacher, student, teacher.packing.pack_batch(batch)), 900)
    assert {entry["name"] for entry in found} == {"gear", "position[0]", "position[1]"}
    assert found[0]["name"] == "gear" and found[0]["values"] == [2, 3, 4, 5, 6] and found[0]["share"] == [0, 0, 0, 0, 1]
    assert found[0]["count"] == np.bincount(gear)[2:].tolist()


@pytest.mark.parametrize(
    ("space", "batch"),
    [
        (spaces.Discrete(16), RNG.integers(0, 16, 200)),
        (spaces.MultiBinary(5), RNG.integers(0, 2, (200, 5)).astype("i1")),
        (spaces.MultiDiscrete([3, 4]), RNG.integers(0, 3, (200, 2))),
        (spaces.Box(0, 255, (3, 12, 12), np.uint8), RNG.integers(0, 256, (200, 3, 12, 12)).astype("u1")),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), np.full((1, 2), 1e300)),
        (
            spaces.Box(-np.inf, np.inf, (1,), np.float32),
            np.repeat([0.0, 1.0, *range(2, 14)], [900] + [1] * 13)[:, None],
        ),
    ],
    ids=["discrete", "binary", "multi", "image", "one state", "one value nearly always"],
)
def test_any_space(space: Any, batch: np.ndarray) -> None:
    teacher = StubTeacher(lambda o: _first(o.reshape(len(o), -1)), observation_space=space)
    found = _checked(analysis(teacher, teacher, batch), len(batch))
    assert 0 < len(found) <= MOST_FEATURES
    assert all(share == 0 for entry in found for share in entry["share"])


def test_a_large_image_does_not_push_the_numbers_beside_it_out() -> None:
    space = spaces.Dict(
        {"eye": spaces.Box(0, 255, (3, 40, 40), np.uint8), "speed": spaces.Box(-9, 9, (1,), np.float32)}
    )
    teacher, student = _pair(space, 4800, 0.0)
    batch = {
        "eye": RNG.integers(0, 256, (300, 3, 40, 40)).astype("u1"),
        "speed": RNG.normal(size=(300, 1)).astype("f4"),
    }
    document = analysis(teacher, student, teacher.packing.pack_batch(batch))
    assert document["features"] == 4801 and document["disagreement"][0]["name"] == "speed[0]"


def test_a_memory_and_no_states() -> None:
    teacher, student = _pair(spaces.Box(-9, 9, (2,), np.float32), 0, 0.0, recurrent=True)
    seen = RNG.normal(size=(30, 2)).astype("f4")
    document = analysis(teacher, student, seen)
    assert document["disagreement"] == [] and document["differ"] is None
    teacher, student = _pair(spaces.Box(-9, 9, (2,), np.float32), 0, 0.0)
    assert analysis(teacher, student, seen[:0])["entropy"] is None


def test_bins_are_those_of_a_histogram_with_values_that_many_states_share() -> None:
    seen = RNG.normal(size=(2000, 3)).round(1).astype("f4")
    teacher, student = _pair(spaces.Box(-9, 9, (3,), np.float32), 0, 0.5)
    for entry in _checked(analysis(teacher, student, seen), 2000):
        values = seen[:, int(entry["name"][4])].astype("f8")
        assert entry["values"] is None
        assert entry["count"] == np.histogram(values, entry["edges"])[0].tolist()


def test_what_chance_gives_is_no_spread() -> None:
    seen = RNG.normal(size=(1500, 41)).astype("f4")
    teacher, student = _pair(spaces.Box(-9, 9, (41,), np.float32), 40, 0.0)
    found = _checked(analysis(teacher, student, seen), 1500)
    assert found[0]["name"] == "obs[40]"
    noise = [entry["spread"] for entry in found[1:]]
    assert sum(spread == 0 for spread in noise) > 10 and max(noise) < 0.06
