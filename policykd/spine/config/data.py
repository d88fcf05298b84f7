"""The sections `data` and `update`: the labelled states, and how the family is fitted to them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from policykd.spine.config.section import Auto, Positive, Section


class DataConfig(Section):
    """The labelled states."""

    shorthand: ClassVar[str] = "dir"  # the key that a text in the place of the section means

    dir: str | None = None
    """A folder of `policykd collect`: all is learned from it, and the environment only judges. On the command line
    data=DIR says the same."""
    max_states: Annotated[int, Field(ge=1000)] = 1_000_000
    """Bound of the data set; the oldest states are dropped first."""
    weighting: Literal["none", "q_gap", "confidence"] = "none"
    """How often a state is drawn, of discrete actions: q_gap, by how much the worst action there is worse than the
    best (VIPER); confidence, by how sure the teacher is (docs/methods/weighting.md)."""


class UpdateConfig(Section):
    """How the family is fitted to the labelled states."""

    n_updates: Auto | Positive = "auto"
    """Optimizer steps per round; auto: 400 for discrete actions, 1000 for continuous ones, which need precision."""
    batch_size: Positive = 256
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-2
    """Of Adam, in round 0; it falls linearly over all updates."""
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 1e-4
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Bound on each member's gradient norm; None for no bound."""
