"""A family without some of its members: what is left goes on learning as if the others had never been there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from policykd.students.spec import MemberSpec


class Divisible(Protocol):
    """What a family of any kind says of itself, so that it can lose members."""

    specs: tuple[MemberSpec, ...]
    flat: Tensor

    def like(self, specs: Iterable[MemberSpec]) -> Self:
        """Another family of the same kind, with its own first weights."""
        ...

    def places(self, index: int) -> list[Tensor]:
        """Where the member's own weights, biases and log_std stand in `flat`, in one order for every family."""
        ...


F = TypeVar("F", bound=Divisible)


def subset(family: F, keep: Sequence[int]) -> tuple[F, Tensor]:
    """The family of the members `keep`, and for each entry of its flat vector where it stood in the old one (-1 for
    padding): `carried` moves weights and the optimizer's moments alike."""
    kept = family.like(family.specs[i] for i in keep)
    origin = torch.full((kept.flat.numel(),), -1, dtype=torch.long)
    for new, old in enumerate(sorted(keep)):
        for target, source in zip(kept.places(new), family.places(old), strict=True):
            origin[target] = source
    origin = origin.to(family.flat.device)
    kept.flat.copy_(carried(family.flat, origin))
    return kept, origin


def carried(vector: Tensor, origin: Tensor) -> Tensor:
    """The entries of an old flat vector in the order of the new one; padding is zero."""
    return torch.where(origin >= 0, vector[origin.clamp(min=0)], torch.zeros((), device=vector.device))
