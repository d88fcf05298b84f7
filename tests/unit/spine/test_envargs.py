"""Arguments of an environment that a file names: plain values pass, what could name a file does not."""

from __future__ import annotations

from typing import Any

import pytest

from policykd.spine.envargs import safe_kwargs
from policykd.spine.errors import InputError

GOOD = {
    "gravity": -9.0, "sutton_barto_reward": True, "map_name": "4x4", "desc": ["SFFF", "FHFH"], "mode": 0, "n": None,
    "weights": {"a": [1, 2.5]}, "reward_type": "dense", "difficulty": "v1.5",
}  # fmt: skip


def test_plain_values_pass_and_no_window_opens() -> None:
    assert safe_kwargs({**GOOD, "render_mode": "human"}, "x") == GOOD
    assert safe_kwargs(None, "x") == safe_kwargs("", "x") == {}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"xml_file": "ant"}, {"model_path": "ant"}, {"a": "/etc/passwd"}, {"a": "..\\x"}, {"a": "~x"}, {"a": "ant.xml"},
        {"a": ["b", {"c": "http://x"}]}, {"a": "module:Class"}, {"a": float("nan")}, {"a": object()}, {"a": 2**64},
        {"a": [[[[[1]]]]]}, {"a": [0] * 20_000}, {1: 2}, [1], "text", {"a": "x" * 300},
    ],
)  # fmt: skip
def test_what_could_name_a_file_is_refused_in_one_line(kwargs: Any) -> None:
    with pytest.raises(InputError, match="teacher.zip: ") as caught:
        safe_kwargs(kwargs, "teacher.zip")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_shared_lists_cost_no_more_than_the_bound() -> None:
    value: Any = [0]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(InputError):
        safe_kwargs({"a": value}, "x")
