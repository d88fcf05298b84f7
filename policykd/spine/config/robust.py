"""The section `robust`: what is done to observations, actions and the environment's own numbers (docs/robust.md)."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Section

KINDS = ("noise", "delay", "drop", "parameters")
_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")


class RobustConfig(Section):
    """Disturbances, all off at first. They act where `collect` or `evaluate` say so; selection and the gate stay
    undisturbed."""

    noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Gaussian noise on observed numbers: its standard deviation as a part of each number's own, as the teacher's
    selection episodes show it; of images as a part of their range (255)."""
    delay: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps by which an action takes effect late. Until the first one arrives the environment gets the middle of the
    action range, or the lowest choice."""
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that an observation is lost, and the last one that arrived is seen again; an episode's first one
    always arrives."""
    parameters: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = {}
    """[low, high] of a factor, drawn anew for every episode, of a number or array of floats of the environment, by its
    path from `env.unwrapped`: {gravity: [0.8, 1.2]}, {model.body_mass: [0.9, 1.1]}."""
    collect: bool = False
    """Whether data is collected under all of these together. The student sees what is disturbed; the teacher labels,
    and acts on, the true state."""
    evaluate: bool = False
    """Whether teacher and student are judged at the end under each of these alone, and under all of them."""
    episodes: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Episodes of each such judgement, the first of the report's; None takes them all."""

    @property
    def on(self) -> tuple[str, ...]:
        """The disturbances that are set."""
        return tuple(kind for kind in KINDS if getattr(self, kind))

    @model_validator(mode="after")
    def _of_use(self) -> Self:
        for path, (low, high) in self.parameters.items():
            if not _PATH.fullmatch(path):
                raise ValueError(f"parameters {path[:60]!r}: expected a path such as gravity or model.opt.gravity")
            if low > high:
                raise ValueError(f"parameters {path}: [{low:g}, {high:g}] is empty: give the lower factor first")
        if self.on and not (self.collect or self.evaluate):
            raise ValueError(f"{', '.join(self.on)} without effect: set collect=true, evaluate=true or both")
        for switch in ("collect", "evaluate"):
            if getattr(self, switch) and not self.on:
                raise ValueError(f"{switch} has nothing to do: set noise, delay, drop or parameters as well")
        if self.episodes is not None and not self.evaluate:
            raise ValueError(f"episodes {self.episodes} has no effect without evaluate=true")
        return self
