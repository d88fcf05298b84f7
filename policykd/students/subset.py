"""A family without some of its members: what is left goes on learning as if the others had never been there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policykd.students.family import Family


def subset(family: Family, keep: Sequence[int]) -> tuple[Family, Tensor]:
    """The family of the members `keep`, and for each entry of its flat vector where it stood in the old one (-1 for
    padding): `carried` moves weights and the optimizer's moments alike."""
    kept = Family([family.specs[i] for i in keep], family.n_inputs, family.distribution, activation=family.activation)
    origin = torch.full((kept.flat.numel(),), -1, dtype=torch.long)
    for new, old in enumerate(sorted(keep)):
        for target, source in zip(_positions(kept, new), _positions(family, old), strict=True):
            origin[target] = source
    kept = kept if family.device.type == "cpu" else _moved(kept, family.device)
    origin = origin.to(family.device)
    kept.flat.copy_(carried(family.flat, origin))
    return kept, origin


def carried(vector: Tensor, origin: Tensor) -> Tensor:
    """The entries of an old flat vector in the order of the new one; padding is zero."""
    return torch.where(origin >= 0, vector[origin.clamp(min=0)], torch.zeros((), device=vector.device))


def _positions(family: Family, index: int) -> list[Tensor]:
    """Where the member's own weights, biases and log_std stand in the flat vector."""
    group = next(g for g in family.groups if g.members.start <= index < g.members.stop)
    row, found = index - group.members.start, []
    for weight, bias, (i, o) in zip(
        group.weights, group.biases, family.specs[index].sizes(family.n_inputs, family.n_means), strict=True
    ):
        found.append(_places(weight)[row, :i, :o].reshape(-1))
        found.append(_places(bias)[row, 0, :o].reshape(-1))
    found.append(_places(family.log_std)[index].reshape(-1))
    return found


def _places(view: Tensor) -> Tensor:
    """The index into the flat vector of each entry of a contiguous view of it."""
    return torch.arange(view.numel()).view(view.shape).add(int(view.storage_offset()))


def _moved(family: Family, device: torch.device) -> Family:
    return Family(family.specs, family.n_inputs, family.distribution, activation=family.activation, device=device)
