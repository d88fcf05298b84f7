"""Attention transfer: where in an image the student's convolutions are active is pulled to where the teacher's are.

    loss = policy loss + beta / 2 * sum over pairs of || Q_S / ||Q_S|| - Q_T / ||Q_T|| ||,  Q = sum over channels of A^2

(Zagoruyko and Komodakis 2017, arXiv:1612.03928, eq. 2 with p = 2 and the maps of section 3.1; all norms are l2, over
the positions of a map.) A are activations [C, H, W]. The teacher's map is part of the label, at the size of the
student's, to which it is interpolated; nothing is learned but the student, and nothing is left behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.spine.errors import InputError
from policykd.spine.packing import Path

_LEAST = 1e-6  # norm of a map that is divided by: below it nothing is active, and the map is zero
Size = tuple[int, int]
"""(height, width) of a map."""


@dataclass(frozen=True)
class Attended:
    """A pair: number of the teacher's convolution and of the student's, from 1 on; the student's map has `size`, and so
    has the teacher's in the label's `columns`."""

    theirs: int
    ours: int
    size: Size
    columns: slice

    @property
    def name(self) -> str:
        """Of its curve."""
        return f"attention_{self.theirs}_{self.ours}"


def attention_map(activations: Tensor, size: Size | None = None) -> Tensor:
    """Q / ||Q|| [B, h * w] of activations [B, C, H, W]; where its `size` is to be another than (H, W), Q is first
    interpolated: bilinearly, and where it shrinks over all that lies below a position."""
    q = activations.square().sum(1)
    if size is not None and tuple(q.shape[1:]) != size:
        q = F.interpolate(q.unsqueeze(1), size, mode="bilinear", antialias=True).squeeze(1)
    return F.normalize(q.flatten(1), eps=_LEAST)


class Attention:
    """The pull of all pairs on the members of a family. `unexplained` has, by the pair's name, the mean norm of each
    member [S] in the last mini-batch: 0 for equal maps, the root of 2 for such that have nothing in common."""

    def __init__(self, weight: float, pairs: Sequence[Attended]) -> None:
        self.weight, self.pairs = weight, tuple(pairs)
        self.unexplained: dict[str, Tensor] = {}

    def loss(self, labels: Tensor, maps: Sequence[Sequence[Tensor]]) -> Tensor:
        """Summed over members, for labels [B, L] and what each member's convolutions gave, [B, C, H, W] each."""
        total = labels.new_zeros(())
        for pair in self.pairs:
            wanted = labels[:, pair.columns]
            gaps = torch.stack([attention_map(own[pair.ours - 1]) - wanted for own in maps])
            norms = torch.linalg.vector_norm(gaps, dim=-1).mean(-1)
            total = total + self.weight / 2 * norms.sum()
            self.unexplained[pair.name] = norms.detach()
        return total


def attended(
    named: Sequence[Sequence[int]] | None,
    theirs: Mapping[Path, Sequence[Size]],
    ours: Mapping[Path, Sequence[Size]],
    first: int,
) -> list[Attended]:
    """The pairs of the convolutions that are `named`, or of each image that both see the last of both whose maps have
    more than one position; `theirs` and `ours` are the sizes of the maps by image, and the label's columns begin at
    `first`. InputError where there are none."""
    own, other = _numbered(ours), _numbered(theirs)
    found, end = list[Attended](), first
    for number, mine in _last(other, own) if named is None else named:
        for who, which, known in (("teacher", number, other), ("student", mine, own)):
            if which > len(known):
                raise InputError(
                    f"aside.attention_pairs: names the {who}'s convolution {which}, and it has {len(known)}: name one "
                    "of them"
                )
            if math.prod(known[which - 1][1]) == 1:
                raise InputError(
                    f"aside.attention_pairs: the map of the {who}'s convolution {which} is a single position, which "
                    f"says nothing: name one of {_sizes(known)}"
                )
        size = own[mine - 1][1]
        begin, end = end, end + math.prod(size)
        found.append(Attended(number, mine, size, slice(begin, end)))
    if not found:
        raise InputError(
            f"aside.attention: teacher (maps of {_sizes(other)}) and student ({_sizes(own)}) have no image in common "
            "with maps of more than one position: name convolutions in aside.attention_pairs, or leave attention out"
        )
    return found


def _numbered(sizes: Mapping[Path, Sequence[Size]]) -> list[tuple[Path, Size]]:
    return [(path, size) for path, own in sizes.items() for size in own]


def _last(theirs: Sequence[tuple[Path, Size]], ours: Sequence[tuple[Path, Size]]) -> list[tuple[int, int]]:
    """Of each image of both the last of both, from 1 on."""
    last, own = (
        {path: number for number, (path, size) in enumerate(known, 1) if math.prod(size) > 1}
        for known in (theirs, ours)
    )
    return [(number, own[path]) for path, number in last.items() if path in own]


def _sizes(known: Sequence[tuple[Path, Size]]) -> str:
    """`1: 8 x 8, 2: 3 x 3`."""
    each = (f"{number}: {height} x {width}" for number, (_, (height, width)) in enumerate(known, 1))
    return ", ".join(each) or "none"
