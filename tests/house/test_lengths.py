from __future__ import annotations

import pytest

from tests.house.rules import MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS, ROOT, length_problems, sources


def _function(lines: int, parameters: str = "", decorator: str = "") -> str:
    return f"{decorator}\ndef f({parameters}):\n" + "    x = 1\n" * (lines - 1)


_NAMES = [f"p{i}" for i in range(MAX_PARAMETERS + 1)]


@pytest.mark.parametrize("path", sources(), ids=str)
def test_lengths(path):
    assert list(length_problems((ROOT / path).read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n" * (MAX_FILE + 1), "lines, at most"),
        (_function(MAX_FUNCTION + 1), "f has 61 lines"),
        ("class A:\n    async def g(self):\n" + "        x = 1\n" * MAX_FUNCTION, "g has 61 lines"),
        (_function(2, ", ".join(_NAMES)), "f has 7 parameters"),
        (_function(2, "a, /, *, " + ", ".join(_NAMES[1:])), "f has 7 parameters"),
        (_function(2, ", ".join(_NAMES), "@cache.wrap()"), "f has 7 parameters"),
    ],
)
def test_finds_what_is_too_long(text, expected):
    problems = list(length_problems(text))
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" * MAX_FILE,
        _function(MAX_FUNCTION),
        _function(2, "self, " + ", ".join(_NAMES[1:])),
        _function(2, ", ".join(_NAMES), "@app.command()"),
    ],
)
def test_accepts_what_is_just_right(text):
    assert list(length_problems(text)) == []
