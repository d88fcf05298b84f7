"""Soft and hard targets, and how they change over a run: what the loss of a round is.

Per member, with its temperature T and its share alpha of the soft loss (both axes of the family):

    loss = alpha * T^2 * D(teacher^(1/T), student^(1/T)) + (1 - alpha) * -log student(a*)        (Hinton et al. 2015, 2)

- `loss.hard_rounds` ends the run with rounds of hard targets alone (alpha = 0), after soft ones.
- `loss.adapt` lets T or alpha follow the member's own progress g in [0, 1], its agreement with the teacher on the
  states it visited last: T_g = 1 + (T - 1)(1 - g) softens while the student is far off, as annealing does over time
  (Jafari et al. 2021, arXiv:2104.07163); alpha_g = 1 - (1 - alpha) g adds hard targets as it comes near. Where we
  differ: what they tie to the epoch follows the student.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from policykd.loss.losses import Loss
from policykd.spine.config.loss import LossConfig
from policykd.students.spec import MemberSpec


def family_loss(config: LossConfig, specs: Sequence[MemberSpec], *, masked: bool) -> Loss:
    """The configured loss of these members, before any progress."""
    temperature = tuple(_scalar(config.temperature) if s.temperature is None else s.temperature for s in specs)
    alpha = tuple(_scalar(config.alpha) if s.alpha is None else s.alpha for s in specs)
    loss = Loss(config.kind, temperature, config.convention, masked, alpha, config.hard)
    return loss.among(range(len(specs)))


def round_loss(config: LossConfig, loss: Loss, rounds: tuple[int, int], progress: Sequence[float]) -> Loss:
    """The loss of round `rounds[0]` of `rounds[1]`, for members of this `progress`, from their `family_loss`."""
    index, count = rounds
    if index >= count - config.hard_rounds:
        return replace(loss, alpha=0.0)
    if config.adapt == "none":
        return loss
    members = range(len(progress))
    known = [0.0 if math.isnan(g) else g for g in progress]
    temperature, alpha = zip(*(loss.of(m) for m in members), strict=True)
    if config.adapt in ("temperature", "both"):
        temperature = tuple(1.0 + (t - 1.0) * (1.0 - g) for t, g in zip(temperature, known, strict=True))
    if config.adapt in ("alpha", "both"):
        alpha = tuple(1.0 - (1.0 - a) * g for a, g in zip(alpha, known, strict=True))
    return replace(loss, temperature=temperature, alpha=alpha).among(members)


def _scalar(value: float | list[float]) -> float:
    return value[0] if isinstance(value, list) else value
