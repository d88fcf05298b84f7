"""How members with a memory act while data is collected."""

from __future__ import annotations

import torch
from torch import Tensor

from policykd.students.gru import gru_step
from policykd.students.normaliser import Normaliser
from policykd.students.recurrent import GruFamily
from policykd.students.view import View


class GruMembers:
    """Raw observations [N, *O] to parameters [N, P], N/S neighbouring slots each. What they remember is kept here, and
    is empty at first: a shard begins with new episodes."""

    def __init__(self, family: GruFamily, normaliser: Normaliser, view: View, n_envs: int) -> None:
        self._family, self._normaliser, self._view = family, normaliser, view
        self._each = n_envs // len(family)
        self._hidden = [torch.zeros(self._each, spec.width, device=family.device) for spec in family.specs]

    @torch.no_grad()
    def step(self, observation: Tensor, start: Tensor) -> Tensor:
        """One step of every slot; `start` [N] says where an episode begins."""
        inputs = self._normaliser.apply(self._view.tensor_features(observation))
        found = []
        for index in range(len(self._family)):
            rows = slice(index * self._each, (index + 1) * self._each)
            begins = start[rows].to(inputs.device, torch.bool).view(-1, 1)
            before = torch.where(begins, torch.zeros((), device=inputs.device), self._hidden[index])
            parts = self._family.parts(index)
            self._hidden[index] = gru_step(parts, inputs[rows], before)
            found.append(self._family.params_after(index, parts, self._hidden[index], self._family.log_std))
        return torch.cat(found)
