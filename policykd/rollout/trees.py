"""How decision trees act while data is collected."""

from __future__ import annotations

import torch
from torch import Tensor

from policykd.students.tree_family import TreeFamily
from policykd.students.view import View


class TreeMembers:
    """The members of a family as they are now: raw observations [N, *O] to parameters [N, P], N/S neighbouring slots
    each."""

    def __init__(self, family: TreeFamily, view: View) -> None:
        self._members, self._view = [family.member(index) for index in range(len(family))], view

    def __call__(self, observation: Tensor) -> Tensor:
        parts = self._view.tensor_features(observation).float().chunk(len(self._members))
        return torch.cat([member(part) for member, part in zip(self._members, parts, strict=True)])
