"""SAC with the pull to the teacher. SB3's `train` stays as it is: before each step of the actor's optimizer a hook adds
the gradient of lambda x mean(KL), on the batch that the replay buffer gave last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from policykd.finetuning.critic import discounted, fit_values, regress, values_of
from policykd.finetuning.kickstart import Kickstart
from policykd.finetuning.rewards import ScaledRewards, scale_for
from policykd.finetuning.warmup import Warmup

_SWEEPS = 3  # of the warm-up: cut episodes are continued by the critic of the sweep before
ENTROPY = "auto_0.01"  # SAC's own start, 1, would make the student random before it learns
PARTS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class RememberingReplay(ReplayBuffer):
    """A replay buffer that knows the batch it gave last."""

    last: ReplayBufferSamples

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """A batch."""
        self.last = super().sample(batch_size, env)
        return self.last


class KickstartedSAC(SAC):
    """SAC that learns nothing in its warm-up, at whose end the critics are fitted. `kick`, `warmup` are set behind its
    construction."""

    kick: Kickstart
    warmup: Warmup
    figures: dict[str, float]
    few = 1000  # updates behind which the student is judged for the first time

    def pull(self) -> None:
        """From here on the actor's optimizer adds the pull."""
        self.actor.optimizer.register_step_pre_hook(lambda *_: self._add_gradient())

    def _add_gradient(self) -> None:
        if self.kick.weight == 0.0:
            return
        buffer = self.replay_buffer
        assert isinstance(buffer, RememberingReplay)
        observation = buffer.last.observations
        assert isinstance(observation, Tensor)
        mean, log_std, _ = self.actor.get_action_dist_params(observation)
        kl = self.kick.kl(observation, torch.cat([mean, log_std], -1))
        (self.kick.weight * kl.mean()).backward()

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Nothing in the warm-up, its end, or SAC's own steps."""
        if not self.warmup.done:
            if self.num_timesteps < self.kick.config.warmup_steps:
                return
            self._warm_up()
            self.warmup.done = True
            return
        super().train(gradient_steps, batch_size)
        self.figures = {
            name.removeprefix("train/"): float(value)
            for name, value in self.logger.name_to_value.items()
            if name.startswith("train/")
        }

    def _warm_up(self) -> None:
        """Fits both critics to the returns of what the student did."""
        env, buffer, warmup, config = self.get_env(), self.replay_buffer, self.warmup, self.kick.config
        assert isinstance(env, ScaledRewards) and isinstance(buffer, ReplayBuffer)
        n = buffer.size()
        seen, following, actions = (
            torch.from_numpy(getattr(buffer, part)[:n].reshape(n, -1)).to(self.device) for part in PARTS[:3]
        )
        rewards = buffer.rewards[:n].astype(np.float64)
        terminal = (buffer.dones[:n] * (1.0 - buffer.timeouts[:n])).astype(bool)
        ended = buffer.dones[:n].astype(bool)
        bootstrap = np.zeros_like(rewards)
        for sweep in range(_SWEEPS):
            returns = discounted(rewards, ended, bootstrap, self.gamma)
            if not sweep:
                env.scale = scale_for(returns)
                rewards, returns = rewards * env.scale, returns * env.scale
                buffer.rewards[:n] *= env.scale
            targets = self._targets(returns, rewards, terminal, n)
            warmup.r2 = regress(
                lambda rows: [q.flatten() for q in self.critic(seen[rows].float(), actions[rows])],
                list(self.critic.parameters()),
                torch.from_numpy(targets.reshape(-1)).float().to(self.device),
                config.critic_learning_rate,
                config.warmup_epochs,
                config.batch_size,
            )
            with torch.no_grad():
                chosen = self.actor(following.float(), deterministic=False)
                ahead = torch.cat(self.critic(following.float(), chosen), 1).min(1).values.cpu().numpy()
            bootstrap = ahead.astype(np.float64).reshape(rewards.shape) * ~terminal
        self.critic_target.load_state_dict(self.critic.state_dict())
        warmup.rounds = 1

    def _targets(self, returns: Any, rewards: Any, terminal: Any, n: int) -> Any:
        """The returns [n, 1], or a step of reward and then the teacher's fitted value where that explains them."""
        teacher, buffer = self.kick.teacher, self.replay_buffer
        assert buffer is not None
        if not teacher.valued:
            return returns
        shape = teacher.packing.shape
        fitted = fit_values(values_of(teacher, buffer.observations[:n].reshape(-1, *shape)), returns.reshape(-1))
        self.warmup.teacher_r2 = fitted.r2
        self.warmup.source = "teacher" if fitted.useful else "returns"
        if not fitted.useful:
            return returns
        ahead = fitted(values_of(teacher, buffer.next_observations[:n].reshape(-1, *shape)))
        return rewards + self.gamma * ahead.reshape(rewards.shape) * ~terminal
