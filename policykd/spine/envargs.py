"""Keyword arguments of an environment that a file names, and not the user."""

from __future__ import annotations

import math
import re
from typing import Any

from policykd.spine.errors import InputError, brief

_NAMES_A_FILE = re.compile(r"(file|path|folder|dir|directory|url|uri)s?\Z", re.IGNORECASE)
_FILE = re.compile(r"[/\\]|\A[.~]|\.[A-Za-z]\w{0,7}\Z|\A\w{2,}:")
_MOST = 10_000  # values of all arguments together


def safe_kwargs(kwargs: Any, where: str) -> dict[str, Any]:
    """The arguments without `render_mode`, which would open a window.

    InputError, which begins with `where`, unless all are plain values none of which can name a file: MuJoCo's
    `xml_file` would be read, with everything that it includes.
    """
    if kwargs in (None, ""):
        return {}
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise InputError(f"{where}: the environment's arguments are no mapping of names to plain values")
    left = [_MOST]
    for key, value in kwargs.items():
        if key != "render_mode" and not _is_plain(key, value, left):
            shown = repr(brief(value, 40)) if isinstance(value, str | float) else f"a {type(value).__name__}"
            raise InputError(
                f"{where}: the environment's argument {key[:40]!r} is {shown}, which could name a file, or is no plain "
                "value; what a file says is not enough for that: name environment and arguments yourself"
            )
    return {key: value for key, value in kwargs.items() if key != "render_mode"}


def _is_plain(key: str, value: Any, left: list[int], depth: int = 0) -> bool:
    left[0] -= 1
    if left[0] < 0 or depth > 3:
        return False
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(name, item, left, depth + 1) for name, item in value.items())
    if isinstance(value, list):
        return all(_is_plain(key, item, left, depth + 1) for item in value)
    if isinstance(value, str):
        return len(value) <= 200 and not _NAMES_A_FILE.search(key) and not _FILE.search(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63)
