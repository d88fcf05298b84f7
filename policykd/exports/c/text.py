"""Numbers, arrays and comments as C text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from policykd.exports.c.layout import INT32
from policykd.exports.graph import Array

YOURS = "This file is yours: what policykd generates belongs to whoever generates it, without conditions."
LARGEST = float(np.finfo(np.float32).max)


def literal(value: Any) -> str:
    """A float32 that reads back as the same bits in C99 and in every C++; ValueError for a NaN or infinity."""
    number = np.float32(value)
    if not np.isfinite(number):
        raise ValueError(f"{number} has no literal in C")
    text = f"{number:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def integer(value: Any) -> str:
    """An int32; the smallest one has no literal of its own."""
    number = int(value)
    return f"({number + 1} - 1)" if number == INT32.min else str(number)


def values(array: Array, kind: str) -> str:
    """The braces after `=` for an array of one, two or more dimensions; `kind` is its type in C."""
    if array.ndim > 1:
        return "{\n" + ",\n".join("    " + values(row, kind) for row in array) + "\n}"
    write = literal if kind == "float" else integer
    return "{" + ", ".join(write(value) for value in array) + "}"


def constant(name: str, array: Array, kind: str = "float") -> str:
    """`static const` of that name, its dimensions those of `array`."""
    sizes = "".join(f"[{size}]" for size in array.shape)
    return f"static const {kind} {name}{sizes} = {values(array, kind)};\n"


def remark(text: object, limit: int = 120) -> str:
    """Text that may come from anywhere (keys of an observation), for a comment: nothing in it ends the comment."""
    plain = str(text).encode("ascii", "backslashreplace").decode()
    return re.sub(r"[^A-Za-z0-9 _.,:;()\[\]{}<>=+'\"-]", "_", plain)[:limit]
