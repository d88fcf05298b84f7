"""Rewards in one fixed scale: that in which the returns of the warm-up have a standard deviation of 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from policykd.finetuning.critic import F64

_LEAST = 1e-8


class ScaledRewards(VecEnvWrapper):
    """Multiplies rewards by `scale`, which stays as it is once the warm-up has set it: a running one (VecNormalize)
    would move under the critic. Monitors lie inside, and count rewards as they came."""

    scale = 1.0

    def reset(self) -> Any:
        """First observations."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """What the environments answered."""
        observation, reward, done, info = self.venv.step_wait()
        return observation, (reward * self.scale).astype(np.float32), done, info


def scale_for(returns: F64) -> float:
    """1 / standard deviation of the returns; 1 where they do not differ."""
    spread = float(returns.std())
    return 1.0 / spread if spread > _LEAST else 1.0
