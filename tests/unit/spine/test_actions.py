"""Fails when an environment action differs in a single bit from stable-baselines3's, or when a map or a space does not
survive JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.spaces import action_map, decode_space, describe_space, encode_space, same_shape

BOXES = [
    spaces.Box(np.array([-2.0, 0.0, -1.0], np.float32), np.array([0.3, 0.1, 7.0], np.float32)),
    spaces.Box(-0.7, 0.3, (3,), np.float64),
]
ACTIONS = np.random.default_rng(0).normal(0, 2, (500, 3)).astype(np.float32)


@pytest.mark.parametrize("box", BOXES, ids=["float32", "float64"])
def test_formulas_are_those_of_sb3(box: spaces.Box) -> None:
    """`BasePolicy.predict` clips what is not squashed; `BasePolicy.unscale_action` is for what is."""
    clipped = action_map(box, unscale=False)(ACTIONS)
    np.testing.assert_array_equal(clipped, np.clip(ACTIONS, box.low, box.high))
    unit = np.tanh(ACTIONS)
    unscaled = action_map(box, unscale=True)(unit)
    np.testing.assert_array_equal(unscaled, (box.low + 0.5 * (unit + 1.0) * (box.high - box.low)).astype(box.dtype))
    beyond = action_map(box, unscale=True)(np.array([[-9, 0, 9]], np.float32))[0]
    np.testing.assert_allclose(beyond, [box.low[0], (box.low[1] + box.high[1]) / 2, box.high[2]], rtol=1e-6)
    for action in (*clipped, *unscaled):
        assert action.dtype == box.dtype and box.contains(action)


def test_unscale_equals_sb3_on_its_own_policy() -> None:
    from stable_baselines3.td3.policies import TD3Policy

    policy = TD3Policy(spaces.Box(-1, 1, (2,)), BOXES[0], lambda _: 0.0)
    unit = np.tanh(ACTIONS)
    np.testing.assert_array_equal(action_map(BOXES[0], unscale=True)(unit), policy.unscale_action(unit))


def test_shapes_and_offsets() -> None:
    matrix = spaces.Box(-1, 1, (2, 2))
    assert action_map(matrix, unscale=False)(np.zeros((5, 4))).shape == (5, 2, 2)
    assert action_map(spaces.Discrete(3, start=-4), unscale=False)(np.array([0, 2])).tolist() == [-4, -2]
    multi = spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, 4]])
    mapped = action_map(multi, unscale=False)(np.array([[0, 1, 2, 3]]))
    assert mapped.tolist() == [[[1, 3], [5, 7]]] and multi.contains(mapped[0])
    bits = action_map(spaces.MultiBinary([2, 2]), unscale=False)(np.array([[1, 0, 0, 1]]))
    assert bits.dtype == np.int8 and spaces.MultiBinary([2, 2]).contains(bits[0])


def test_infinite_bounds_cannot_be_unscaled() -> None:
    endless = spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(InputError, match="infinite"):
        action_map(endless, unscale=True)
    np.testing.assert_array_equal(action_map(endless, unscale=False)(ACTIONS[:, :2]), ACTIONS[:, :2])
    with pytest.raises(InputError, match="Text"):
        action_map(spaces.Text(3), unscale=False)


MAPS = [
    *(action_map(box, unscale=flag) for box in BOXES for flag in (True, False)),
    action_map(spaces.Box(-np.inf, np.inf, (2, 2)), unscale=False),
    action_map(spaces.Discrete(3, start=2), unscale=False),
    action_map(spaces.MultiDiscrete([2, 3]), unscale=False),
    action_map(spaces.MultiBinary(3), unscale=False),
]


@pytest.mark.parametrize("mapped", MAPS, ids=lambda m: f"{m.kind}-{m.dtype}")
def test_map_survives_json(mapped: ActionMap) -> None:
    assert ActionMap.from_json(json.loads(json.dumps(mapped.to_json(), allow_nan=False))) == mapped


def test_unknown_maps_are_refused() -> None:
    document = MAPS[0].to_json()
    with pytest.raises(ValueError, match="kind"):
        ActionMap.from_json({**document, "kind": "other"})
    with pytest.raises(ValueError, match="bounds"):
        ActionMap.from_json({**document, "low": [0.0]})


FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
INTEGERS = st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint32])
SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@st.composite
def boxes(draw: Any) -> spaces.Box:
    dtype, shape = np.dtype(draw(st.one_of(FLOATS, INTEGERS))), draw(SHAPES)
    if dtype.kind == "f":
        elements = st.floats(width=8 * dtype.itemsize, allow_nan=False, allow_subnormal=False)
    else:
        limits = np.iinfo(dtype)
        elements = st.integers(int(limits.min), int(limits.max))
    a, b = (draw(npst.arrays(dtype, shape, elements=elements)) for _ in range(2))
    low, high = np.minimum(a, b), np.maximum(a, b)
    low, high = np.where(np.isposinf(low), 0, low).astype(dtype), np.where(np.isneginf(high), 0, high).astype(dtype)
    return spaces.Box(np.minimum(low, high), high, shape, dtype.type)


LEAVES = st.one_of(
    boxes(),
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-5, 5)),
    st.lists(st.integers(1, 5), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.builds(lambda n, s: spaces.MultiDiscrete([n, n], start=[s, -s]), st.integers(1, 5), st.integers(-3, 3)),
    st.integers(1, 6).map(spaces.MultiBinary),
    st.lists(st.integers(1, 3), min_size=2, max_size=3).map(spaces.MultiBinary),
)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.text(min_size=1, max_size=4), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=4,
)


@given(NESTED)
@settings(max_examples=120, deadline=None)
def test_space_survives_json(space: spaces.Space[Any]) -> None:
    again = decode_space(json.loads(json.dumps(encode_space(space), sort_keys=True, allow_nan=False)))
    assert again == space
    assert same_shape(space, again) and same_shape(again, space)
    assert describe_space(again) == describe_space(space)
    assert again.dtype == space.dtype and again.shape == space.shape
    space.seed(0)
    try:
        drawn = space.sample()
    except ValueError:  # gymnasium cannot draw from integers as wide as int64
        return
    assert again.contains(drawn)


def test_a_full_range_of_integers_survives() -> None:
    box = spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64)
    assert decode_space(json.loads(json.dumps(encode_space(box)))) == box


def test_spaces_without_a_form_are_refused() -> None:
    with pytest.raises(InputError, match="Text"):
        encode_space(spaces.Dict(a=spaces.Text(3)))
    with pytest.raises(InputError, match="Text"):
        decode_space({"type": "Text"})


def test_bounds_are_no_reason_to_refuse_but_sizes_are() -> None:
    assert same_shape(spaces.Box(-1, 1, (3,)), spaces.Box(-9, np.inf, (3,), np.float64))
    assert not same_shape(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (4,)))
    assert not same_shape(spaces.Discrete(3), spaces.Discrete(4))
    assert not same_shape(spaces.Discrete(3), spaces.MultiDiscrete([3]))
    assert not same_shape(spaces.MultiDiscrete([3, 2]), spaces.MultiDiscrete([2, 3]))
    assert not same_shape(spaces.Dict(a=spaces.Discrete(2)), spaces.Dict(b=spaces.Discrete(2)))
    assert not same_shape(spaces.Dict(a=spaces.Discrete(2)), spaces.Dict(a=spaces.Discrete(3)))
    assert not same_shape(spaces.Tuple([spaces.Discrete(2)]), spaces.Tuple([spaces.Discrete(2)] * 2))
