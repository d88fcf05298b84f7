"""The observation space of an environment that shows the teacher one thing and the student another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gymnasium import spaces

if TYPE_CHECKING:
    from gymnasium import Space

    from policykd.spine.packing import Leaf

TEACHER, STUDENT = "teacher", "student"


class Views(spaces.Dict):
    """A Dict with an entry for each of the two; a kind of its own, since an environment may have such keys itself."""

    def __init__(self, teacher: Space[Any], student: Space[Any]) -> None:
        super().__init__(OrderedDict([(TEACHER, teacher), (STUDENT, student)]))


def leaves_of(view: str, leaves: Sequence[Leaf]) -> tuple[Leaf, ...]:
    """The leaves of one entry of a packing of `Views`, by their paths inside that entry; they begin where they lie."""
    return tuple(replace(leaf, path=leaf.path[1:]) for leaf in leaves if leaf.path[0] == view)
