"""The section `loss`: what pulls the student to the teacher."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Auto, Section


class LossConfig(Section):
    """What pulls the student to the teacher."""

    kind: Literal["forward_kl", "reverse_kl"] = "forward_kl"
    """KL(teacher || student), or KL(student || teacher)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Softening in the loss; what it multiplies follows from `convention`."""
    convention: Literal["hinton", "rusu", "untempered"] = "hinton"
    """hinton: both sides tempered, loss x temperature^2. rusu: only the teacher tempered. untempered: temperature 1."""

    q_temperature: Auto | Annotated[float, Field(gt=0)] = "auto"
    """What the Q-values of DQN and QR-DQN teachers are divided by to become logits; auto: from their spread."""

    @model_validator(mode="after")
    def _temperature_used(self) -> Self:
        if self.convention == "untempered" and self.temperature != 1.0:
            raise ValueError(
                f"temperature {self.temperature} has no effect with convention untempered: use hinton or rusu, or 1.0"
            )
        return self
