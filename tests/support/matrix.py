"""The algorithms of stable-baselines3 and sb3-contrib in their variants, each trained for a few steps."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3, HerReplayBuffer
from torch import nn

from tests.support.teachers import Spaces, box

CONTINUOUS = box(3, low=-2.0, high=0.5)
SPREAD = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([3.0, 0.25], np.float32))
SDE = {"use_sde": True}
IMAGE = spaces.Box(0, 255, (3, 36, 40), np.uint8)
DICT = spaces.Dict(
    {
        "zoom": box(2), "camera": spaces.Box(0, 255, (1, 36, 36), np.uint8), "mode": spaces.Discrete(4),
        "bits": spaces.MultiBinary(3), "dials": spaces.MultiDiscrete([2, 3]), "matrix": box(2, 2, dtype=np.float64),
    }
)  # fmt: skip
GOAL = spaces.Dict({"observation": box(4), "achieved_goal": box(2), "desired_goal": box(2)})  # as HER has
CNN, MULTI = {"policy": "CnnPolicy"}, {"policy": "MultiInputPolicy"}
HER = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}}


def _kwargs(**policy_kwargs: Any) -> dict[str, Any]:
    return {"policy_kwargs": policy_kwargs}


# name: class, observation space, action space, keyword arguments, algo
CASES: dict[str, tuple[Any, spaces.Space, spaces.Space, dict[str, Any], str]] = {
    "ppo-discrete": (PPO, box(4), spaces.Discrete(3), {}, "ppo"),
    "ppo-box": (PPO, box(4), CONTINUOUS, _kwargs(log_std_init=-0.7), "ppo"),
    "ppo-float64": (PPO, box(4, dtype=np.float64), box(2, low=-1, high=1, dtype=np.float64), {}, "ppo"),
    "ppo-matrix": (PPO, box(2, 3), box(2, 2), _kwargs(net_arch=[]), "ppo"),
    "ppo-multidiscrete": (PPO, box(4), spaces.MultiDiscrete([3, 2, 4]), {}, "ppo"),
    "ppo-multibinary": (PPO, box(4), spaces.MultiBinary(5), {}, "ppo"),
    "ppo-elu": (PPO, box(4), CONTINUOUS, _kwargs(activation_fn=nn.ELU, net_arch={"pi": [5, 7], "vf": [3]}), "ppo"),
    "ppo-unshared": (PPO, box(4), CONTINUOUS, _kwargs(share_features_extractor=False, activation_fn=nn.GELU), "ppo"),
    "ppo-gsde": (PPO, box(4), CONTINUOUS, SDE, "ppo"),
    "ppo-gsde-squash": (PPO, box(4), SPREAD, SDE | _kwargs(squash_output=True, log_std_init=0.3), "ppo"),
    "ppo-gsde-expln": (PPO, box(4), CONTINUOUS, SDE | _kwargs(use_expln=True, full_std=False), "ppo"),
    "ppo-one-hot": (PPO, spaces.Discrete(6), spaces.Discrete(3), {}, "ppo"),
    "ppo-one-hots": (PPO, spaces.MultiDiscrete([3, 5]), spaces.Discrete(3), {}, "ppo"),
    "ppo-bits": (PPO, spaces.MultiBinary(5), spaces.Discrete(3), {}, "ppo"),
    "a2c-discrete": (A2C, box(4), spaces.Discrete(3), {}, "a2c"),
    "trpo-box": (TRPO, box(4), CONTINUOUS, {}, "trpo"),
    "dqn": (DQN, box(4), spaces.Discrete(3), _kwargs(net_arch=[16]), "dqn"),
    "qrdqn": (QRDQN, box(4), spaces.Discrete(3), _kwargs(n_quantiles=7), "qrdqn"),
    "sac": (SAC, box(4), SPREAD, {}, "sac"),
    "sac-gsde": (SAC, box(4), SPREAD, SDE | _kwargs(clip_mean=0.05), "sac"),
    "sac-gsde-unclipped": (SAC, box(4), SPREAD, SDE | _kwargs(clip_mean=0.0, use_expln=True), "sac"),
    "tqc": (TQC, box(4), SPREAD, _kwargs(net_arch=[8, 8], activation_fn=nn.Tanh), "tqc"),
    "tqc-gsde": (TQC, box(4), SPREAD, SDE, "tqc"),
    "td3": (TD3, box(4), SPREAD, {}, "td3"),
    "ddpg": (DDPG, box(4), SPREAD, _kwargs(net_arch=[12]), "ddpg"),
    "ars-mlp": (ARS, box(4), SPREAD, {}, "ars"),
    "ars-mlp-clip": (ARS, box(4), SPREAD, _kwargs(squash_output=False, with_bias=False), "ars"),
    "ars-linear": (ARS, box(4), SPREAD, {"policy": "LinearPolicy"}, "ars"),
    "ars-discrete": (ARS, box(4), spaces.Discrete(3), {"policy": "LinearPolicy", **_kwargs(with_bias=True)}, "ars"),
    "crossq": (CrossQ, box(4), SPREAD, _kwargs(net_arch=[8, 6]), "crossq"),
    "crossq-gsde": (CrossQ, box(4), SPREAD, SDE | _kwargs(batch_norm_eps=0.1), "crossq"),
    "crossq-plain": (CrossQ, box(4), SPREAD, _kwargs(batch_norm=False), "crossq"),
    "ppo-image": (PPO, IMAGE, spaces.Discrete(3), CNN, "ppo"),
    "ppo-image-unshared": (PPO, IMAGE, CONTINUOUS, CNN | _kwargs(share_features_extractor=False), "ppo"),
    "ppo-image-flat": (PPO, spaces.Box(0, 255, (6, 5, 3), np.uint8), spaces.Discrete(3), {}, "ppo"),
    "ppo-image-raw": (PPO, IMAGE, spaces.Discrete(3), CNN | _kwargs(normalize_images=False, net_arch=[8],
        features_extractor_kwargs={"normalized_image": True, "features_dim": 16}), "ppo"),
    "a2c-dict": (A2C, DICT, spaces.MultiDiscrete([3, 2]), MULTI, "a2c"),
    "trpo-dict": (TRPO, DICT, CONTINUOUS, MULTI | _kwargs(share_features_extractor=False), "trpo"),
    "dqn-image": (DQN, IMAGE, spaces.Discrete(3), CNN, "dqn"),
    "dqn-dict": (DQN, DICT, spaces.Discrete(3), MULTI, "dqn"),
    "qrdqn-image": (QRDQN, IMAGE, spaces.Discrete(3), CNN, "qrdqn"),
    "qrdqn-dict": (QRDQN, GOAL, spaces.Discrete(3), MULTI, "qrdqn"),
    "sac-image": (SAC, IMAGE, SPREAD, CNN, "sac"),
    "sac-dict": (SAC, GOAL, SPREAD, MULTI | _kwargs(share_features_extractor=True), "sac"),
    "tqc-dict": (TQC, GOAL, SPREAD, MULTI, "tqc"),
    "td3-image": (TD3, IMAGE, SPREAD, CNN, "td3"),
    "ddpg-dict": (DDPG, GOAL, SPREAD, MULTI, "ddpg"),
    "sac-her": (SAC, GOAL, SPREAD, MULTI | HER, "sac"),
    "dqn-her": (DQN, GOAL, spaces.Discrete(3), MULTI | HER, "dqn"),
}  # fmt: skip
STEPS = 16
_ON_POLICY = {"n_steps": 8}
_OFF_POLICY = {"buffer_size": 40, "learning_starts": 6, "batch_size": 4, "train_freq": 1}
_SETTINGS: dict[Any, dict[str, Any]] = {
    PPO: _ON_POLICY | {"batch_size": 8, "n_epochs": 2},
    TRPO: _ON_POLICY | {"batch_size": 8},
    A2C: _ON_POLICY,
    ARS: {"n_delta": 2},
    **dict.fromkeys((DQN, QRDQN, SAC, TQC, TD3, DDPG, CrossQ), _OFF_POLICY),
}


class Goals(Spaces):
    """An environment as HER expects it."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        """The distance to the goal, negated; one for each row."""
        return -np.linalg.norm(achieved - desired, axis=-1)


def make_model(case: str) -> Any:
    """An untrained model whose every weight is random: SB3 starts some at zero, which would hide mistakes."""
    algorithm, observation_space, action_space, kwargs, _ = CASES[case]
    observation_space.seed(0)  # which other cases share: a model must not depend on those before it
    settings = {"policy": "MlpPolicy", "seed": 1, "device": "cpu"} | _SETTINGS[algorithm] | kwargs
    model = algorithm(env=Goals(observation_space, action_space), **settings)
    shake(model, 0.2)
    return model


def shake(model: Any, scale: float) -> None:
    """Adds seeded noise to every weight."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.policy.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(noise * (0.5 if "log_std" in name else scale))


@cache
def trained(case: str) -> Any:
    """The model after a few steps of its own training. It is shared by the tests of a process: do not change it."""
    model = make_model(case)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(STEPS)
    assert any(not torch.equal(value, before[name]) for name, value in model.policy.state_dict().items())
    model.policy.set_training_mode(False)
    return model
