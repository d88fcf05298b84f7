"""PPO with the pull to the teacher. SB3's `train` stays as it is: its loss holds ent_coef x -mean(entropy), so a policy
that gives entropy x weight - lambda x KL in the place of its entropy, under ent_coef 1, adds exactly lambda x mean(KL).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor

from policykd.finetuning.critic import fit_values, regress, values_of
from policykd.finetuning.kickstart import Kickstart
from policykd.finetuning.rewards import ScaledRewards, scale_for
from policykd.finetuning.warmup import Warmup
from policykd.teachers.ways import params_of


class RememberingRollouts(RolloutBuffer):
    """A rollout buffer that knows the batch it gave last: PPD's term needs what the actions' probabilities were."""

    last: RolloutBufferSamples

    def get(self, batch_size: int | None = None) -> Iterator[RolloutBufferSamples]:  # type: ignore[override]
        """The batches of one pass."""
        for self.last in super().get(batch_size):
            yield self.last


class KickstartedPolicy(ActorCriticPolicy):
    """An actor-critic whose entropy term carries the pull; `kick` and `rollouts` are set behind its construction."""

    kick: Kickstart
    rollouts: RememberingRollouts

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log probabilities, and entropy x weight - lambda x KL(teacher || student), [B] each."""
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        assert entropy is not None  # no squashed Gaussian here
        kick = self.kick
        pull = kick.weight * kick.kl(obs, params_of(self.action_dist))
        if kick.config.proximal:
            ratio = torch.exp(log_prob - self.rollouts.last.old_log_prob)
            pull = pull * torch.clamp(ratio, min=1.0 - kick.config.clip_range)
        return values, log_prob, kick.config.entropy * entropy - pull


class KickstartedPPO(PPO):
    """PPO whose first rollouts teach the critic alone. `kick` and `warmup` are set behind its construction."""

    kick: Kickstart
    warmup: Warmup
    figures: dict[str, float]
    few = 1  # updates behind which the student is judged for the first time: one rollout

    def train(self) -> None:
        """One pass of the critic in the warm-up, one of PPO behind it."""
        config = self.kick.config
        if not self.warmup.done:
            self._warm_up()
            self.warmup.done = self.num_timesteps >= config.warmup_steps
            if not self.warmup.done:
                return
            self.rollout_buffer.gae_lambda = config.gae_lambda
            return
        super().train()
        self.figures = {
            name.removeprefix("train/"): float(value)
            for name, value in self.logger.name_to_value.items()
            if name.startswith("train/")
        }

    def _warm_up(self) -> None:
        """Fits the critic to the rollout's returns, which gae_lambda 1 makes discounted sums of rewards."""
        env, buffer, warmup = self.get_env(), self.rollout_buffer, self.warmup
        assert isinstance(env, ScaledRewards) and isinstance(buffer, RolloutBuffer)
        returns = buffer.returns.astype("float64").reshape(-1)
        if not warmup.rounds:
            env.scale = scale_for(returns)
            returns = returns * env.scale
        seen = buffer.observations.reshape(-1, *buffer.obs_shape)
        targets, teacher = returns, self.kick.teacher
        if teacher.valued:
            values = values_of(teacher, seen)
            fitted = fit_values(values, returns)
            targets = fitted(values) if fitted.useful else returns
            warmup.teacher_r2 = fitted.r2
            warmup.source = "teacher" if fitted.useful else "returns"
        observations = torch.from_numpy(seen).to(self.device)
        policy = self.policy
        warmup.r2 = regress(
            lambda rows: [policy.predict_values(observations[rows]).flatten()],
            [*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()],
            torch.from_numpy(targets).float().to(self.device),
            self.kick.config.critic_learning_rate,
            self.kick.config.warmup_epochs,
            self.kick.config.batch_size,
        )
        warmup.rounds += 1
