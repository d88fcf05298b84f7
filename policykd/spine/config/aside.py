"""The section `aside`: what else of the teacher a student learns while it learns to act (docs/methods/layerwise.md)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Section

Layer = Annotated[int, Field(ge=1, le=64)]
Pair = Annotated[list[Layer], Field(min_length=2, max_length=2)]


class AsideConfig(Section):
    """What pulls at the student's hidden layers beside the loss; nothing of it is in the student when it is done."""

    value: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Weight of the teacher's value of a state, read off the student's last hidden layer."""
    hints: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Weight of the teacher's hidden activations, read off the student's."""
    pairs: Annotated[list[Pair], Field(min_length=1)] | None = None
    """Which: [[layer of the teacher, layer of the student], ...], from 1 on; None: the middle one of both."""
    hint_rounds: Annotated[int, Field(ge=0)] = 0
    """Rounds over which the weight of hints falls to 0; 0: it stays."""

    attention: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Weight beta of the teacher's attention maps: where in an image its convolutions are active, and the student's."""
    attention_pairs: Annotated[list[Pair], Field(min_length=1)] | None = None
    """Which: [[convolution of the teacher, convolution of the student], ...], from 1 on, through all images; None: of
    each image that both see the last of both, but for maps of a single position."""

    @property
    def heads(self) -> bool:
        """Whether heads on hidden layers are learned, by an mlp."""
        return self.value > 0 or self.hints > 0

    @property
    def active(self) -> bool:
        """Whether anything is learned aside."""
        return self.heads or self.attention > 0

    @model_validator(mode="after")
    def _maps_are_wanted(self) -> Self:
        if not self.attention and self.attention_pairs is not None:
            raise ValueError("attention_pairs has no effect without attention: set aside.attention, or leave it out")
        return self

    @model_validator(mode="after")
    def _hints_are_wanted(self) -> Self:
        if not self.hints and (self.pairs is not None or self.hint_rounds):
            name = "pairs" if self.pairs is not None else "hint_rounds"
            raise ValueError(f"{name} has no effect without hints: set aside.hints, or leave it out")
        return self
