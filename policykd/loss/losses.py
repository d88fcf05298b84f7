"""The configured loss: a term of `terms`, tempered, and the hard targets beside it.

Conventions of the temperature t (they are incompatible; the configuration names one):
  hinton      both sides tempered, loss * t^2, so that the gradient's size does not depend on t (Hinton et al. 2015,
              arXiv:1503.02531, section 2).
  rusu        only the teacher tempered, no factor (Rusu et al. 2015, arXiv:1511.06295, eq. 3); t < 1 sharpens.
  untempered  t = 1.
For Gaussians, tempering both sides divides only the mean-error term of the KL by t.

Soft and hard targets (Hinton et al. 2015, section 2): alpha * soft + (1 - alpha) * hard, where hard is -log student(a)
of the teacher's most likely or sampled action a. Where it differs from the paper: its hard targets are true labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.loss.masking import masked_like
from policykd.loss.terms import TERMS, Kind

Convention = Literal["hinton", "rusu", "untempered"]
Hard = Literal["mode", "sample"]
PerMember = float | tuple[float, ...]
"""One number, or one for each member of a family."""


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
    return Loss("forward_kl", temperature, convention)(distribution, teacher, student)


def reverse_kl(
    distribution: Distribution,
    teacher: Tensor,
    student: Tensor,
    temperature: float = 1.0,
    convention: Convention = "hinton",
) -> Tensor:
    """KL(student || teacher), mode-seeking, in nats. Shapes as in `forward_kl`."""
    return Loss("reverse_kl", temperature, convention)(distribution, teacher, student)


@dataclass(frozen=True)
class Loss:
    """A configured loss: a function of (distribution, labels [B, L], student [S, B, P]) that gives [S, B].

    Labels begin with the teacher's P parameters; of `hard` sample, the action that it drew comes next.
    `masked`: the labels hold -inf where an action was masked, and the student is masked there as well.
    `temperature` and `alpha` may differ from member to member.
    """

    kind: Kind = "forward_kl"
    temperature: PerMember = 1.0
    convention: Convention = "hinton"
    masked: bool = False
    alpha: PerMember = 1.0
    hard: Hard = "mode"

    def __call__(self, distribution: Distribution, labels: Tensor, student: Tensor) -> Tensor:
        teacher = labels[..., : distribution.n_params]
        student = masked_like(student, teacher) if self.masked else student
        if self.alpha == 1.0:
            return self._soft(distribution, teacher, student)
        hard = -distribution.log_prob(student, self._action(distribution, labels))
        if self.alpha == 0.0:
            return hard
        alpha = _column(self.alpha, student)
        return alpha * self._soft(distribution, teacher, student) + (1.0 - alpha) * hard

    @property
    def plain(self) -> bool:
        """Whether it is the forward KL and nothing else."""
        return type(self) is Loss and self.kind == "forward_kl" and self._even and self.alpha == 1.0 and not self.masked

    def of(self, member: int) -> tuple[float, float]:
        """The member's temperature and alpha."""
        return _one(self.temperature, member), _one(self.alpha, member)

    def among(self, members: Sequence[int]) -> Loss:
        """The loss of these members of a family."""
        temperature, alpha = zip(*(self.of(m) for m in members), strict=True)
        return replace(self, temperature=_same(temperature), alpha=_same(alpha))

    def with_gradient(self, distribution: Distribution, labels: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """The loss [S, B] and its gradient by the student's parameters [S, B, P], which must not record one.

        In closed form for the plain forward KL (a third of the time of autograd on small batches), else by autograd.
        """
        if self.kind == "forward_kl" and self._even and self.alpha == 1.0:
            teacher = labels[..., : distribution.n_params]
            return distribution.kl_with_gradient(teacher, masked_like(student, teacher) if self.masked else student)
        leaf = student.detach().requires_grad_()
        loss = self(distribution, labels, leaf)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    @property
    def _even(self) -> bool:
        return self.convention == "untempered" or self.temperature == 1.0

    def _soft(self, distribution: Distribution, teacher: Tensor, student: Tensor) -> Tensor:
        term = TERMS[self.kind]
        if self._even:
            return term(distribution, teacher, student)
        t = _column(self.temperature, student)
        sharpened = distribution.temper(teacher, t.unsqueeze(-1) if isinstance(t, Tensor) else t)
        if self.convention == "rusu":
            return term(distribution, sharpened, student)
        softened = distribution.temper(student, t.unsqueeze(-1) if isinstance(t, Tensor) else t)
        return term(distribution, sharpened, softened) * t**2

    def _action(self, distribution: Distribution, labels: Tensor) -> Tensor:
        if self.hard == "mode":
            return distribution.mode(labels[..., : distribution.n_params])
        return drawn_action(distribution, labels[..., distribution.n_params :])


def make_loss(kind: Kind, temperature: PerMember, convention: Convention, *, masked: bool = False) -> Loss:
    """The configured loss without hard targets."""
    return Loss(kind, temperature, convention, masked)


def action_width(distribution: Distribution) -> int:
    """How many numbers of a label one drawn action takes."""
    sample = distribution.mode(torch.zeros(1, distribution.n_params))
    return 1 if sample.dim() == 1 else sample.shape[-1]


def drawn_action(distribution: Distribution, columns: Tensor) -> Tensor:
    """The action as `Distribution.sample` gave it, from the columns [..., width and more] that hold it."""
    sample = distribution.mode(columns.new_zeros(1, distribution.n_params))
    own = columns[..., : action_width(distribution)]
    return (own.squeeze(-1) if sample.dim() == 1 else own).to(sample.dtype)


def _column(value: PerMember, student: Tensor) -> float | Tensor:
    """As it multiplies losses [S, B]."""
    if not isinstance(value, tuple):
        return value
    return _on(value, student.dtype, student.device)


@lru_cache(maxsize=8)
def _on(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[S, 1], written on the device: a copy of the host's would wait for all that is under way there."""
    return torch.stack([torch.full((1,), value, dtype=dtype, device=device) for value in values])


def _one(value: PerMember, member: int) -> float:
    return value[member] if isinstance(value, tuple) else value


def _same(values: tuple[float, ...]) -> PerMember:
    return values[0] if len(set(values)) == 1 else values
