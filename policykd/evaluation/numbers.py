"""The numbers of an observation that are looked at one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from policykd.spine.features import name_of
from policykd.spine.packing import Leaf


@dataclass(frozen=True)
class Number:
    """One number of a packed observation: its name, where it stands in the flat array; `choice` where it only names a
    choice."""

    name: str
    column: int
    choice: bool


def examined(leaves: Iterable[Leaf], most: int) -> list[Number]:
    """At most so many numbers: those of small entries first; of what is left over, evenly spaced ones."""
    room, chosen = most, []
    for leaf in sorted(leaves, key=lambda leaf: (leaf.size, leaf.begin)):
        picked = np.unique(np.linspace(0, leaf.size - 1, min(leaf.size, room)).astype(int))
        room -= len(picked)
        chosen += [Number(name_of(leaf, i), leaf.begin + i, bool(leaf.nvec)) for i in picked.tolist()]
    return chosen
