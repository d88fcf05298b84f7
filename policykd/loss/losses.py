"""Distillation losses: one definition each, pure, per state, broadcasting a leading student axis.

Conventions of the temperature t (they are incompatible; the configuration names one):
  hinton      both sides tempered, loss * t^2, so that the gradient's size does not depend on t (Hinton et al. 2015,
              arXiv:1503.02531, section 2).
  rusu        only the teacher tempered, no factor (Rusu et al. 2015, arXiv:1511.06295, eq. 3); t < 1 sharpens.
  untempered  t = 1.
For Gaussians, tempering both sides divides only the mean-error term of the KL by t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from policykd.loss.distributions import Distribution

Convention = Literal["hinton", "rusu", "untempered"]
Loss = Callable[[Distribution, Tensor, Tensor], Tensor]


def forward_kl(
    distribution: Distribution,
    teacher: Tensor,
    student: Tensor,
    temperature: float = 1.0,
    convention: Convention = "hinton",
) -> Tensor:
    """KL(teacher || student), mass-covering, in nats.

    teacher [B, P], student [S, B, P] or [B, P] -> [S, B] or [B].
    """
    teacher, student, factor = _tempered(distribution, teacher, student, temperature, convention)
    return distribution.kl(teacher, student) * factor


def reverse_kl(
    distribution: Distribution,
    teacher: Tensor,
    student: Tensor,
    temperature: float = 1.0,
    convention: Convention = "hinton",
) -> Tensor:
    """KL(student || teacher), mode-seeking, in nats. Shapes as in `forward_kl`."""
    teacher, student, factor = _tempered(distribution, teacher, student, temperature, convention)
    return distribution.kl(student, teacher) * factor


def make_loss(kind: Literal["forward_kl", "reverse_kl"], temperature: float, convention: Convention) -> Loss:
    """The configured loss as a function (distribution, teacher, student) -> loss per state."""
    function = {"forward_kl": forward_kl, "reverse_kl": reverse_kl}[kind]
    return lambda distribution, teacher, student: function(distribution, teacher, student, temperature, convention)


def _tempered(
    distribution: Distribution, teacher: Tensor, student: Tensor, temperature: float, convention: Convention
) -> tuple[Tensor, Tensor, float]:
    if convention == "untempered" or temperature == 1.0:
        return teacher, student, 1.0
    sharpened = distribution.temper(teacher, temperature)
    if convention == "rusu":
        return sharpened, student, 1.0
    return sharpened, distribution.temper(student, temperature), temperature**2
