"""Stable-Baselines3's own model with a teacher's weights, to measure its loops beside ours."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

from policykd.teachers.base import Teacher
from policykd.teachers.networks import Dense, Network


def vec_env(env_id: str, n_envs: int) -> Any:
    """DummyVecEnv of monitored environments, without a render mode."""
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv([lambda: Monitor(gym.make(env_id)) for _ in range(n_envs)])


def ppo_of(teacher: Teacher, env: Any) -> Any:
    """PPO's MlpPolicy with the weights of a PPO teacher of plain layers."""
    from stable_baselines3 import PPO

    assert isinstance(teacher.network, Network)
    layers = [layer for layer in teacher.network.layers if isinstance(layer, Dense)]
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[layers[0].activation]
    arch = {"pi": [layer.sizes[1] for layer in layers[:-1]], "vf": [1]}
    model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": arch, "activation_fn": activation}, device="cpu")
    hidden = [m for m in model.policy.mlp_extractor.policy_net if isinstance(m, torch.nn.Linear)]
    for module, layer in zip([*hidden, model.policy.action_net], layers, strict=True):
        assert isinstance(module, torch.nn.Linear) and layer.bias is not None
        module.weight.data.copy_(layer.weight)
        module.bias.data.copy_(layer.bias)
    return model
