"""The section `loss`: what pulls the student to the teacher (docs/methods/losses.md, docs/methods/targets.md)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Auto, Section

Temperature = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class LossConfig(Section):
    """What pulls the student to the teacher."""

    kind: Literal["forward_kl", "reverse_kl", "jsd", "cross_entropy", "expected_entropy", "mse", "huber"] = "forward_kl"
    """KL(teacher || student), KL(student || teacher), the Jensen-Shannon divergence between them, -E_teacher[log
    student], -E_student[log teacher], or the squared (Huber's) error of logits or means."""
    temperature: Temperature | Annotated[list[Temperature], Field(min_length=1)] = 1.0
    """Softening in the loss; what it multiplies follows from `convention`. A list is an axis of the family."""
    convention: Literal["hinton", "rusu", "untempered"] = "hinton"
    """hinton: both sides tempered, loss x temperature^2. rusu: only the teacher tempered. untempered: temperature 1."""
    alpha: Share | Annotated[list[Share], Field(min_length=1)] = 1.0
    """Share of this soft loss; the rest is -log student(a) of the teacher's action a. A list: an axis of the family."""
    hard: Literal["mode", "sample"] = "mode"
    """The teacher's action of the hard loss: its most likely one, or one that it drew in that state."""
    hard_rounds: Annotated[int, Field(ge=0)] = 0
    """Rounds at the end of the run that learn from hard targets alone."""
    adapt: Literal["none", "temperature", "alpha", "both"] = "none"
    """What follows each member's agreement with the teacher: the temperature falls to 1, alpha from 1 to its value."""
    q_temperature: Auto | Temperature = "auto"
    """What the Q-values of DQN and QR-DQN teachers are divided by to become logits; auto: from their spread."""

    @property
    def uses_hard(self) -> bool:
        """Whether there is a hard loss at any time."""
        return self.hard_rounds > 0 or any(share < 1.0 for share in _listed(self.alpha))

    @property
    def tempers(self) -> bool:
        """Whether there is a temperature other than 1."""
        return any(t != 1.0 for t in _listed(self.temperature))

    @model_validator(mode="after")
    def _each_has_an_effect(self) -> Self:
        if self.convention == "untempered" and self.tempers:
            raise ValueError(
                f"temperature {self.temperature} has no effect with convention untempered: use hinton or rusu, or 1.0"
            )
        if self.kind in ("mse", "huber") and self.tempers:
            raise ValueError(
                f"temperature {self.temperature} has no sense with kind {self.kind}, which compares logits and means "
                "and no probabilities: use forward_kl, or temperature 1.0"
            )
        if self.hard == "sample" and not self.uses_hard:
            raise ValueError("hard sample has no effect with alpha 1.0 and hard_rounds 0: lower alpha, or leave it out")
        if self.adapt in ("temperature", "both") and not self.tempers:
            raise ValueError(f"adapt {self.adapt} has no effect with temperature 1.0, where it ends: start it higher")
        if self.adapt in ("alpha", "both") and not any(share < 1.0 for share in _listed(self.alpha)):
            raise ValueError(f"adapt {self.adapt} has no effect with alpha 1.0, where it begins: lower alpha")
        return self


def _listed(value: float | list[float]) -> list[float]:
    return value if isinstance(value, list) else [value]
