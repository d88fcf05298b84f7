"""What a finished run's folder says, for its report: read with care, since a folder may come from a stranger.

A value of another type than expected counts as absent, so that no document can break the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from policykd.report.curves import Curve, curves_in
from policykd.spine.errors import InputError
from policykd.spine.files import read_json

Json = Mapping[str, Any]

_MOST_BYTES = 2**23  # of a document; a frontier of 1,000 members with curves takes 2 MB
_MOST_CONFIG = 2**18
MOST_MEMBERS = 2000
MOST_TEXT = 2000
MOST_BINS = 100
MOST_POINTS = 1000  # of a curve in frontier.json


def number(value: Any) -> float | None:
    """A finite number as a float, what no run measures as 0 (below 1e-30 in size); anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return float(value) if abs(value) < 2**63 else None
    if not math.isfinite(value) or abs(value) >= 1e30:
        return None
    return value if abs(value) >= 1e-30 else 0.0


def size(value: Any) -> float | None:
    """A number of parameters: 1 or more, anything else as None."""
    found = number(value)
    return found if found is not None and found >= 1 else None


def section(document: Any, *keys: str) -> Json:
    """The object below these keys; an empty one where there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else {}


def interval(value: Any) -> tuple[float, float] | None:
    """Two ends in order."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None or low > high else (low, high)


def words(value: Any, most: int = MOST_TEXT) -> str | None:
    """A text, cut where it is longer than any of ours; anything else as None."""
    if not isinstance(value, str):
        return None
    return value if len(value) <= most else f"{value[:most]}…"


def numbers(value: Any) -> list[float] | None:
    """A list of at most `MOST_BINS` + 1 finite numbers; None where one of them is none, or where it is longer."""
    if not isinstance(value, list) or len(value) > MOST_BINS + 1:
        return None
    found = [number(item) for item in value]
    return None if any(item is None for item in found) else [item for item in found if item is not None]


@dataclass(frozen=True)
class Member:
    """One student of the frontier; `says` is its entry in frontier.json."""

    index: int
    says: Json
    params: float | None
    retention: float | None
    interval: tuple[float, float] | None
    status: str

    @property
    def shape(self) -> str:
        """`16x2`: width and depth, where they are known; of convolutions `c8 16x2`, of trees `16 leaves`."""
        leaves = number(self.says.get("leaves"))
        if leaves is not None:
            return f"{leaves:g} leaves"
        width, depth, channels = (number(self.says.get(name)) for name in ("width", "depth", "channels"))
        if width is None:
            return ""
        shape = f"{width:g}" if depth is None else f"{width:g}×{depth:g}"
        return shape if channels is None else f"c{channels:g} {shape}"

    @cached_property
    def curve(self) -> list[tuple[float, float]]:
        """(timesteps, retention) points."""
        return points(self.says.get("curve"))


def points(value: Any) -> list[tuple[float, float]]:
    """The pairs of numbers in a list, in the order of the first; everything else is left out."""
    found = []
    for item in value[:MOST_POINTS] if isinstance(value, list) else []:
        if isinstance(item, list | tuple) and len(item) == 2:
            x, y = number(item[0]), number(item[1])
            if x is not None and y is not None:
                found.append((x, y))
    return sorted(found)


def members_of(frontier: Any, result: Any) -> list[Member]:
    """The members of the frontier, the fewest parameters first; of a run without one, its only student."""
    listed = section(frontier).get("members") if frontier is not None else None
    if not isinstance(listed, list) or not listed:
        student, held = section(result, "student"), section(result, "retention")
        own = {name: student.get(name) for name in ("params", "constants", "macs", "bytes")}
        episodes, agreement = section(result).get("episodes"), section(result).get("agreement")
        held_by = {"retention": held.get("value"), "interval": held.get("ci95"), "agreement": agreement}
        listed = [{**own, **held_by, "episodes": episodes, "status": "chosen"}]
    found = []
    for index, says in enumerate(listed[:MOST_MEMBERS]):
        if isinstance(says, Mapping):
            found.append(
                Member(
                    index,
                    says,
                    size(says.get("params")),
                    number(says.get("retention")),
                    interval(says.get("interval")),
                    words(says.get("status"), 40) or "",
                )
            )
    return sorted(found, key=lambda member: (member.params is None, member.params or 0.0, member.index))


@dataclass(frozen=True)
class Facts:
    """A run's documents; `frontier` and `analysis` are None where the run has none."""

    folder: Path
    result: Json
    frontier: Json | None
    analysis: Json | None
    config_text: str
    config: Json
    curves: list[Curve] = field(default_factory=list)

    @cached_property
    def members(self) -> list[Member]:
        """See `members_of`."""
        return members_of(self.frontier, self.result)


def read_facts(folder: Path) -> Facts:
    """The documents of a finished run. InputError where the folder holds none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a finished run, such as runs/NAME-1")
    result = _document(folder / "result.json")
    if result is None:
        unfinished = (folder / "config.yaml").is_file()
        do = f"finish it with policykd distill --resume {folder}" if unfinished else "give the folder of a finished run"
        raise InputError(f"{folder}: no result.json in it, so there is nothing to report; {do}")
    if result.get("format") != 1:
        raise InputError(
            f"{folder / 'result.json'}: format is {str(result.get('format'))[:20]!r}, expected 1; report it with the "
            "version of policykd that wrote it"
        )
    text = _config_text(folder / "config.yaml")
    return Facts(
        folder,
        result,
        _document(folder / "frontier.json"),
        _document(folder / "analysis.json"),
        text,
        _config(text),
        curves_in(folder),
    )


def _document(path: Path) -> dict[str, Any] | None:
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, expected at most {_MOST_BYTES:,}; it was altered")
    try:
        return read_json(path)
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be read; the file was altered, start a new run") from None


def _config_text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_MOST_CONFIG).decode("utf-8", "replace").replace("\r\n", "\n")


def _config(text: str) -> Json:
    """The configuration as data; empty where it cannot be read, since the page shows its text anyway."""
    from policykd.spine.config.yaml_io import parse_yaml

    try:
        found = parse_yaml(text, "config.yaml")
    except (InputError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
