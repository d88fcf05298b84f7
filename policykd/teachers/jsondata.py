"""JSON of bounded cost: a file of brackets alone takes forty times the time and memory of one of text."""

from __future__ import annotations

import json
from typing import Any


def read_json(raw: bytes, max_values: int) -> Any:
    """The document in `raw`; ValueError for none, RecursionError for one too deep.

    ValueError also for more than `max_values` brackets and commas, each of which begins or follows a value.
    """
    found = sum(map(raw.count, (b"[", b"{", b",")))
    if found > max_values:
        raise ValueError(f"{found} brackets and commas, more than the limit of {max_values}")
    return json.loads(raw)
