"""Observations of any space are packed without loss, and a student's features say what the space says."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from policykd.spine.errors import InputError
from policykd.spine.packing import packed_batch, packing_from_json, packing_of
from policykd.spine.spaces import decode_space, encode_space

DTYPES = (np.float32, np.float64, np.uint8, np.int16, np.uint16, np.int64)


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    return spaces.Box(0, 200, shape, dtype)


SIMPLE = st.one_of(
    boxes(),
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 300), st.integers(-5, 5)),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, st.integers(1, 4)),
)


def _unsorted(entries: dict[str, spaces.Space[Any]]) -> spaces.Dict:
    """A Dict in the order that was drawn: of a plain dict gymnasium would sort the keys."""
    return spaces.Dict(OrderedDict(entries))


ANY = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(
            _unsorted, st.dictionaries(st.text("abcxyz.0", min_size=1, max_size=3), inner, min_size=1, max_size=3)
        ),
        st.builds(lambda parts: spaces.Tuple(tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(ANY, st.integers(0, 1000))
def test_nothing_is_lost_and_features_are_gymnasiums(space: spaces.Space[Any], seed: int) -> None:
    packing = packing_of(space)
    space.seed(seed)
    samples = [space.sample() for _ in range(3)]
    packed = np.stack([packing.pack(sample) for sample in samples]).astype(packing.dtype)
    assert packed.shape == (3, *packing.shape)
    for row, sample in enumerate(samples):
        for leaf in packing.leaves:
            value: Any = sample
            for key in leaf.path:
                value = value[key]
            np.testing.assert_array_equal(packing.leaf_of(packed, leaf)[row], value)
    expected = np.stack([_flat(space, sample) for sample in samples])
    np.testing.assert_array_equal(packing.features(packed), expected.astype(np.float32))
    tensor = packing.tensor_features(torch.from_numpy(packed)).float().numpy()
    np.testing.assert_array_equal(tensor, packing.features(packed))
    document = json.loads(json.dumps(encode_space(space), sort_keys=True))  # as the header of a student is written
    assert packing_of(decode_space(document)) == packing_from_json(document) == packing


def test_the_order_of_a_dict_is_one_of_its_keys() -> None:
    document = encode_space(spaces.Dict(z=spaces.Discrete(2), a=spaces.Discrete(3)))
    assert document["order"] == ["z", "a"]
    assert "order" not in encode_space(spaces.Dict(a=spaces.Discrete(3), z=spaces.Discrete(2)))
    for order in (["z"], ["z", "z"], ["z", "b"], "za", 3):
        with pytest.raises(ValueError, match="does not name each"):
            packing_from_json({**document, "order": order})


def _flat(space: spaces.Space[Any], sample: Any) -> np.ndarray:
    """An oracle: the leaves in order, choices one-hot."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([_flat(inner, sample[key]) for key, inner in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        return np.concatenate([_flat(inner, part) for inner, part in zip(space.spaces, sample, strict=True)])
    return np.asarray(gym.spaces.flatten(space, sample), np.float64)


def test_a_vector_environments_batch_is_packed_as_its_rows_are() -> None:
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Tuple((spaces.Discrete(4),))})
    packing = packing_of(space)
    rows = [space.sample() for _ in range(5)]
    batch = gym.vector.utils.concatenate(space, rows, gym.vector.utils.create_empty_array(space, 5))
    np.testing.assert_array_equal(packing.pack_batch(batch), np.stack([packing.pack(row) for row in rows]))
    assert packing.dtype == "float32"
    one, single = packed_batch(rows[0], packing)
    many, several = packed_batch(batch, packing)
    assert (single, several) == (True, False)
    np.testing.assert_array_equal(one[0], many[0])


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    packing = packing_of(spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)}))
    with pytest.raises(InputError, match="no entry 'b'"):
        packing.pack({"a": np.zeros(2)})
    with pytest.raises(InputError, match="'a' has shape"):
        packing.pack_batch({"a": np.zeros((4, 3)), "b": np.zeros(4)})
    with pytest.raises(InputError, match="batches of"):
        packing.pack_batch({"a": np.zeros((4, 2)), "b": np.zeros(3)})
    with pytest.raises(InputError, match="Text"):
        packing_of(spaces.Text(3))
