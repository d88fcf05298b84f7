"""Augmented states: each mini-batch sees the student's inputs anew, jittered or moved.

Jitter is Gaussian noise on normalised inputs (Bishop 1995: for small noise a Tikhonov regulariser of the student's
slope); the shift of images repeats their border (DrQ, Kostrikov et al. 2020, arXiv:2004.13649, section 3.1). Where we
differ from DrQ: labels are the teacher's, and nothing is averaged over several shifts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policykd.loss.masking import masked_like
from policykd.spine.config.augment import AugmentConfig
from policykd.spine.errors import InputError
from policykd.spine.packing import Leaf, Packing
from policykd.spine.types import TeacherPolicy
from policykd.students.encoders import channels_last, is_picture
from policykd.students.normaliser import Normaliser, TensorNormaliser


class Augment:
    """Inputs [..., F], normalised, and labels [..., L] of mini-batches become others of the same shapes."""

    def __init__(self, config: AugmentConfig, packing: Packing, teacher: TeacherPolicy) -> None:
        self._config, self._teacher = config, teacher
        self._pictures, numbers, end = list[tuple[int, Leaf]](), list[Tensor](), 0
        for leaf in packing.leaves:
            picture = is_picture(leaf)
            if picture:
                self._pictures.append((end, leaf))
            numbers.append(torch.full((leaf.n_features,), 0.0 if leaf.nvec or picture or _bits(leaf) else 1.0))
            end += leaf.n_features
        self._numbers = torch.cat(numbers).to(teacher.device)
        self.normaliser: Normaliser | TensorNormaliser | None = None

    def __call__(self, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        c = self._config
        if c.jitter:
            noise = torch.randn(inputs.shape, generator=generator, device=inputs.device)
            inputs = inputs + noise.mul_(c.jitter * self._numbers)
        if c.shift:
            flat = inputs.reshape(-1, inputs.shape[-1]).clone()
            for begin, leaf in self._pictures:
                own = flat[:, begin : begin + leaf.size]
                own.copy_(_moved(own, leaf, c.shift, generator))
            inputs = flat.view(inputs.shape)
        return inputs, self._labelled(inputs, labels) if c.seen_by == "both" else labels

    def _labelled(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The teacher's parameters for what the student sees, under the masks of the states that were visited."""
        assert self.normaliser is not None
        raw = self.normaliser.undone(inputs.reshape(-1, inputs.shape[-1]))
        params = torch.cat([self._teacher.distribution_params(part) for part in raw.split(4096)])
        params = params.view(*inputs.shape[:-1], -1)
        n = params.shape[-1]
        if self._teacher.masked:
            params = masked_like(params, labels[..., :n])
        return torch.cat([params, labels[..., n:]], -1)


def refuse_augment(config: AugmentConfig, kind: str, packing: Packing, *, plain_teacher: bool) -> None:
    """InputError where these observations cannot be augmented so."""
    pictures = any(map(is_picture, packing.leaves))
    if config.shift and not (pictures and kind in ("cnn", "multi")):
        raise InputError(
            f"augment.shift {config.shift}: it moves images, and this student (student.kind {kind}) has none: use "
            "augment.jitter"
        )
    if config.jitter and not any(not (leaf.nvec or is_picture(leaf) or _bits(leaf)) for leaf in packing.leaves):
        raise InputError(f"augment.jitter {config.jitter}: no observed number can be jittered: use augment.shift")
    vector = packing.plain and len(packing.leaves) == 1 and packing.leaves[0].n_features == packing.n_features
    if config.seen_by == "both" and not (vector and not pictures and not packing.leaves[0].nvec and plain_teacher):
        raise InputError(
            "augment.seen_by both: the teacher can only label anew what it sees as the student does, a vector of "
            "numbers without memory: use augment.seen_by=student"
        )


def _bits(leaf: Leaf) -> bool:
    return leaf.dtype in ("bool", "int8")


def _moved(rows: Tensor, leaf: Leaf, most: int, generator: torch.Generator) -> Tensor:
    """Each image [B, size] moved by up to `most` pixels along both axes."""
    last = channels_last(leaf.shape)
    x = rows.view(-1, *leaf.shape) if last else rows.view(-1, *leaf.shape).permute(0, 2, 3, 1)
    count, height, width, _ = x.shape
    by = torch.randint(-most, most + 1, (2, count, 1), generator=generator, device=rows.device)
    down = (torch.arange(height, device=rows.device) + by[0]).clamp(0, height - 1)
    across = (torch.arange(width, device=rows.device) + by[1]).clamp(0, width - 1)
    every = torch.arange(count, device=rows.device)
    moved = x[every[:, None, None], down[:, :, None], across[:, None, :]]
    return (moved if last else moved.permute(0, 3, 1, 2)).reshape(count, -1)
