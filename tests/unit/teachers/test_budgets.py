"""What the readers count before they make it; and that honest files stay far below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO

from policykd.spine.errors import InputError
from policykd.spine.packing import packing_from_json, packing_of
from policykd.spine.spaces import encode_space
from policykd.teachers.jsondata import read_json
from policykd.teachers.load import load_teacher
from policykd.teachers.networks import GsdeStd
from policykd.teachers.pickledarrays import Budget, as_array, as_shape, as_strides
from policykd.teachers.pickledata import DecodeError, decode
from policykd.teachers.ziptools import MAX_DIRECTORY, MAX_MEMBERS, Archive
from tests.security.forms import array
from tests.security.pickles import pickled
from tests.support.matrix import DICT, IMAGE
from tests.support.teachers import Spaces, box, members, write_zip, zip_bytes


def test_a_budget_is_spent_before_the_array_is_made() -> None:
    budget = Budget(8 * 10, "numbers")
    tree = decode(pickled(array(bytes(6), "i1", 6)))
    assert as_array(tree, budget).shape == (6,)
    with pytest.raises(DecodeError, match="more than 80 bytes of numbers"):
        as_array(tree, budget)
    missing = decode(pickled(array(b"", "i1", 5)))
    with pytest.raises(DecodeError, match="expected 5 bytes"):
        as_array(missing, Budget(8 * 10, "numbers"))


def test_shapes_are_bounded_where_they_hold_nothing() -> None:
    assert as_shape((0, 4)) == (0, 4)
    assert as_strides((2**39, 2**39)) == (2**39, 2**39)
    for shape in ((2**39, 2**39, 0), (2**33,), (-1,), (1.0,), (1,) * 9, [1]):
        with pytest.raises(DecodeError):
            as_shape(shape)


def test_json_of_many_values() -> None:
    assert read_json(b'{"a": [1, 2, {"b": []}]}', 6) == {"a": [1, 2, {"b": []}]}
    with pytest.raises(ValueError, match="6 brackets and commas, more than the limit of 5"):
        read_json(b'{"a": [1, 2, {"b": []}]}', 5)


def test_as_many_members_as_are_allowed() -> None:
    names = [f"best_model/data/{count:05}" for count in range(MAX_MEMBERS)]
    assert len(Archive(zip_bytes(dict.fromkeys(names, b"")), "m.zip", "").members) == MAX_MEMBERS
    long = dict.fromkeys((f"{count:05}" + "x" * 60_000 for count in range(MAX_DIRECTORY // 60_000 + 1)), b"")
    with pytest.raises(InputError, match="a directory of members of"):
        Archive(zip_bytes(long), "m.zip", "")


@pytest.mark.parametrize(
    "space",
    [box(3), IMAGE, DICT, spaces.Discrete(4, start=2), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary((2, 2)),
     spaces.Tuple((box(2), DICT))],
    ids=lambda space: type(space).__name__,
)  # fmt: skip
def test_a_packing_needs_no_bounds(space: spaces.Space[Any]) -> None:
    assert packing_of(space) == packing_from_json(encode_space(space))


def test_one_deviation_for_all_actions_stays_one(tmp_path: Path) -> None:
    kwargs = {"net_arch": [5], "full_std": False}
    model = PPO("MlpPolicy", Spaces(box(4), box(3)), use_sde=True, policy_kwargs=kwargs, device="cpu")
    model.save(tmp_path / "model.zip")
    head = load_teacher(tmp_path / "model.zip").network.head  # type: ignore[attr-defined]
    assert isinstance(head, GsdeStd)
    assert head.std.shape == (5, 3) and head.std.stride(1) == 0


def test_observations_of_a_large_camera(tmp_path: Path) -> None:
    """480 x 640 in colour is read; sizes that the file only claims are refused."""
    seen = spaces.Box(0, 255, (3, 480, 640), np.uint8)
    kwargs = {"net_arch": [], "features_extractor_kwargs": {"features_dim": 2}}
    model = PPO("CnnPolicy", Spaces(seen, box(1)), n_steps=2, batch_size=2, device="cpu", policy_kwargs=kwargs)
    model.save(tmp_path / "model.zip")
    assert load_teacher(tmp_path / "model.zip").observation_space == seen
    content = members(tmp_path / "model.zip")
    wider = content["data"].replace(b"480", b"2960").replace(b"640", b"1280")
    write_zip(tmp_path / "model.zip", content | {"data": wider})
    with pytest.raises(InputError, match=r"model\.zip"):
        load_teacher(tmp_path / "model.zip")
