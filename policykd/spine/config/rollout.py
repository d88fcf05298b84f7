"""The section `rollout`: who acts, and how much."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Auto, Positive, Section


class BetaConfig(Section):
    """The probability that the teacher acts, per round (Ross et al. 2011)."""

    schedule: Literal["first_round", "constant", "linear", "exponential"] = "first_round"
    """first_round: 1 in round 0, then 0. linear: from 1 to `final` over the rounds. exponential: `decay`^round."""
    value: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The probability of `constant`."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last probability of `linear`."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The base of `exponential`."""


class RolloutConfig(Section):
    """Who acts, and how much."""

    rounds: Positive = 16
    """Collect-and-fit cycles; round 0 is the teacher's."""
    timesteps: Auto | Positive = "auto"
    """Environment steps of the whole run, all environments counted."""
    n_envs: Auto | Positive = "auto"
    n_steps: Auto | Positive = "auto"
    """Steps of each environment in a round; at least one episode, since every round starts at a reset."""
    beta: BetaConfig = BetaConfig()
    teacher_stochastic: bool = True
    """Whether an acting teacher samples; one without a distribution of its own acts with `noise` instead."""
    student_stochastic: Auto | bool = "auto"
    """Whether an acting student samples, which shows it the states beside its path; auto: where the teacher has a
    distribution of its own to imitate."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Exploration of a deterministic acting teacher: standard deviation as a fraction of the action range, or the
    probability of a uniformly random discrete action."""
    kernel: Auto | Literal["numpy", "torch"] = "auto"
    """What computes actions and labels while collecting: NumPy is faster in small batches and can do plain MLPs on a
    CPU; auto: NumPy for such a teacher. It is part of the result: another one changes the last bits."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if not isinstance(self.timesteps, int):
            return self
        least = self.rounds * (self.n_envs if isinstance(self.n_envs, int) else 1)
        if self.timesteps < least:
            raise ValueError(
                f"timesteps {self.timesteps} is less than one step of each environment in {self.rounds} rounds "
                f"({least}): raise it, or lower rounds or n_envs"
            )
        if (
            isinstance(self.n_envs, int)
            and isinstance(self.n_steps, int)
            and self.n_envs * self.n_steps * self.rounds != self.timesteps
        ):
            raise ValueError(
                f"timesteps {self.timesteps} is not rounds x n_envs x n_steps = {self.rounds} x {self.n_envs} x "
                f"{self.n_steps} = {self.n_envs * self.n_steps * self.rounds}: leave one of them auto"
            )
        return self
