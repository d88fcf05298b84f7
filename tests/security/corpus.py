"""Every hostile input, from fixed bases and fixed seeds: two runs make the same bytes.

A new kind of file gets a module with `MAKERS` here, an opener in `child.py` where `load_teacher` does not open it, and its
rows in docs/security.md.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator

from tests.security import costly, exports, kinds, onnxes, texts, weights, zips
from tests.security.entry import Entry, Large, Maker

MAKERS: tuple[Maker, ...] = (
    *zips.MAKERS,
    *weights.MAKERS,
    *kinds.MAKERS,
    *costly.MAKERS,
    *texts.MAKERS,
    *onnxes.MAKERS,
    *exports.MAKERS,
)
MUTANTS = (zips.RAW, zips.PACKED, zips.CUT)


def corpus() -> Iterator[Entry]:
    """The inputs, in a fixed order."""
    for maker in MAKERS:
        yield from maker()


def counts() -> Counter[str]:
    """How many inputs each category has."""
    return Counter(entry.category for entry in corpus())


def table(found: Counter[str]) -> str:
    """The counts as a table of docs/security.md."""
    rows = [f"| {category} | {count:,} |" for category, count in found.items()]
    return "\n".join(["| category | inputs |", "|---|---|", *rows, f"| **all** | **{found.total():,}** |"])


def sums_are_right(entry: Entry) -> bool:
    """Whether the zip of an entry and the policy.pth inside it are whole zips, so that damage gets past both sums."""
    raw = entry.files["model.zip"]
    if isinstance(raw, Large):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as outer:
            if outer.testzip() is not None:
                return False
            with zipfile.ZipFile(io.BytesIO(outer.read("policy.pth"))) as inner:
                return inner.testzip() is None
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, KeyError, RuntimeError, NotImplementedError, EOFError):
        return False
