"""The pull to the teacher beside the loss of reinforcement learning: lambda(t) x KL(teacher || student).

Kickstarting, Schmitt et al. 2018 (arXiv:1803.03835, eq. 3): there the cross-entropy, whose gradient is that of the KL.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policykd.loss.losses import forward_kl
from policykd.spine.config.finetune import FinetuneConfig
from policykd.teachers.base import Teacher


def weight(config: FinetuneConfig, progress: float, retention: float) -> float:
    """lambda where `progress` (0 to 1) of the timesteps are done and the student was last judged at `retention`.

    Retention is (student - random) / (teacher - random), whatever the signs of the returns: QDagger's
    max(1 - G_student / G_teacher, 0) (Agarwal et al. 2022, arXiv:2206.01626) grows where both are negative and the
    student gets better.
    """
    if config.schedule == "linear":
        return config.kickstart * (1.0 - progress)
    if config.schedule == "return":
        return config.kickstart * min(max(1.0 - retention, 0.0), 1.0)
    return config.kickstart


@dataclass
class Kickstart:
    """The term, as the models ask for it. `weight` is lambda now; `last` the mean KL of the last batch."""

    teacher: Teacher
    config: FinetuneConfig
    weight: float
    last: float = 0.0

    def kl(self, observation: Tensor, params: Tensor) -> Tensor:
        """KL(teacher || student) [B] for raw observations [B, *O] and the student's parameters [B, P]; 0 where lambda
        is, and the teacher is not asked."""
        if self.weight == 0.0:
            return torch.zeros(len(params), device=params.device)
        labels = self.teacher.distribution_params(observation)
        kl = forward_kl(self.teacher.distribution, labels, params)
        self.last = float(kl.detach().mean())
        return kl
