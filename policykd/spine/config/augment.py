"""The section `augment`: states that nobody visited, made of those that were (docs/methods/augment.md)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Section


class AugmentConfig(Section):
    """What is done to the student's inputs in every mini-batch, anew."""

    jitter: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of Gaussian noise on observed numbers, in units of the student's normaliser; choices, bits and
    images stay as they are."""
    shift: Annotated[int, Field(ge=0, le=64)] = 0
    """Pixels by which an image is moved at most, along both axes; its border is repeated."""
    seen_by: Literal["student", "both"] = "student"
    """student: the label is the teacher's at the state that was visited. both: the teacher sees the noise as well, and
    labels anew."""

    @property
    def active(self) -> bool:
        """Whether anything is done."""
        return self.jitter > 0 or self.shift > 0

    @model_validator(mode="after")
    def _both_of_jitter(self) -> Self:
        if self.seen_by == "both" and not self.jitter:
            raise ValueError("seen_by both has no effect without jitter: set augment.jitter, or leave it out")
        if self.seen_by == "both" and self.shift:
            raise ValueError(f"shift {self.shift}: a moved image is not labelled anew: use seen_by student, or shift 0")
        return self
