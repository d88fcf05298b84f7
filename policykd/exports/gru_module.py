"""A graph's Gru as a torch module: the arithmetic of `GruStudent`, operation for operation, in any float dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policykd.exports.gru import Gru
from policykd.students.gru import gru_step


class GruModule(nn.Module):
    """One step. `forward` gives the next state [B, H], which is also what comes out."""

    def __init__(self, layer: Gru) -> None:
        super().__init__()
        self.size = layer.size
        self._names = {name: name.replace(".", "_") for name in layer.arrays}
        for name, part in layer.arrays.items():
            self.register_buffer(self._names[name], torch.from_numpy(part.copy()))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """For inputs x [B, I] and what is remembered, [B, H]."""
        return gru_step({name: getattr(self, own) for name, own in self._names.items()}, x, hidden)


def begun(state: Tensor, start: Tensor) -> Tensor:
    """What is remembered, [B, H]: nothing where `start` [B] says that an episode begins, also of a NaN."""
    return torch.where(start.reshape(-1, 1), torch.zeros((), dtype=state.dtype, device=state.device), state)
