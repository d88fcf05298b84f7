"""The section `finetune`: a student goes on learning, from its rewards and its teacher (docs/methods/finetune.md)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Positive, Section

Rate = Annotated[float, Field(gt=0, le=1)]


class FinetuneConfig(Section):
    """How `policykd finetune` goes on with a student: PPO, or SAC for squashed Gaussians, and a pull to the teacher."""

    student: str | None = None
    """The student's file or run folder. null: a new one, as the section student says (finetune.start random)."""
    start: Literal["student", "random"] = "student"
    """student: from the given student's weights. random: from new ones, in its architecture (PPD)."""
    timesteps: Positive = 100_000
    """Of all environments together, those of the warm-up included; PPO ends with a whole rollout."""
    kickstart: Annotated[float, Field(ge=0)] = 1.0
    """lambda, the weight of KL(teacher || student) beside the loss of PPO or SAC, at the start."""
    schedule: Literal["constant", "linear", "return"] = "return"
    """Of lambda. linear: falls to 0 over the run. return: lambda x (1 - retention) at the last judgement, within 0 and
    1: the pull goes as the student comes to its teacher, and comes back where it falls behind."""
    proximal: bool = False
    """Whether PPO's ratio, bounded below by 1 - clip_range, multiplies the KL of each action, as in PPD."""
    warmup_steps: Annotated[int, Field(ge=0)] = 8192
    """Timesteps at the start in which the student acts as it is and the critic alone learns; 0: none, and rewards keep
    their scale."""
    warmup_epochs: Positive = 10
    """Passes over the warm-up's data."""
    critic_learning_rate: Rate = 1e-3
    """Of the warm-up."""
    judgements: Annotated[int, Field(ge=1, le=1000)] = 10
    """Times that the student is judged on the selection seeds, evenly spread, beside those before and behind the first
    update; the best is kept."""
    learning_rate: Rate = 3e-4
    """Of Adam; it falls linearly to a tenth."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Discount of rewards."""
    batch_size: Positive = 256
    n_envs: Positive = 8
    """Of PPO, like all below; SAC steps one environment, and learns once a step."""
    n_steps: Positive = 256
    """Steps of each environment in a rollout."""
    n_epochs: Positive = 10
    """Passes over a rollout."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    clip_range: Annotated[float, Field(gt=0, lt=1)] = 0.2
    target_kl: Annotated[float, Field(gt=0)] | None = 0.02
    """A rollout is left early where the policy has moved 1.5 times as far."""
    entropy: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start == "student" and self.warmup_steps >= self.timesteps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} leave nothing of timesteps {self.timesteps} to the actor: lower "
                "finetune.warmup_steps, or raise finetune.timesteps"
            )
        if self.n_envs * self.n_steps < 2:
            raise ValueError("n_envs 1 and n_steps 1: a rollout needs two steps: raise finetune.n_steps")
        return self
