"""What the numbers of an observation, and the features that they become, are called. NumPy alone suffices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Entry(Protocol):
    """A leaf of an observation space, or a port of an exported graph."""

    @property
    def path(self) -> tuple[str | int, ...]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def nvec(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Feature:
    """A number of the observation, or, with `choice`, whether it is that choice."""

    name: str
    choice: int | None = None


def name_of(entry: Entry, index: int) -> str:
    """`obs[3]`, `position[0]`, `board.cells[1,2]`; a single number has no brackets."""
    where = ".".join(map(str, entry.path)) or "obs"
    place = np.unravel_index(index, entry.shape) if entry.shape else ()
    return where + (f"[{','.join(str(int(i)) for i in place)}]" if place else "")


def features_of(entries: Iterable[Entry]) -> list[Feature]:
    """Every feature of a student's input, in order."""
    found = list[Feature]()
    for entry in entries:
        if not entry.nvec:
            found += [Feature(name_of(entry, index)) for index in range(entry.size)]
        for index, (n, first) in enumerate(zip(entry.nvec, entry.start, strict=True)):
            found += [Feature(name_of(entry, index), first + choice) for choice in range(n)]
    return found
