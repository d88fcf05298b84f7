"""What is known of a stable-baselines3 model, read from a zip or from a live object, before a network is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from policykd.spine.errors import InputError

if TYPE_CHECKING:
    from gymnasium import Space

ACTOR_CRITIC = "ActorCriticPolicy"
ACTOR_CRITIC_ALGOS = ("ppo", "a2c", "trpo")

POLICY_ALGOS = {
    "stable_baselines3.common.policies.ActorCriticPolicy": ACTOR_CRITIC_ALGOS,
    "stable_baselines3.dqn.policies.DQNPolicy": ("dqn",),
    "stable_baselines3.sac.policies.SACPolicy": ("sac",),
    "stable_baselines3.td3.policies.TD3Policy": ("td3", "ddpg"),
    "sb3_contrib.qrdqn.policies.QRDQNPolicy": ("qrdqn",),
    "sb3_contrib.tqc.policies.TQCPolicy": ("tqc",),
    "sb3_contrib.ars.policies.ARSPolicy": ("ars",),
    "sb3_contrib.ars.policies.ARSLinearPolicy": ("ars",),
}
"""Policy classes that are understood, and the algorithms that use them."""


class UnsupportedPolicy(InputError):
    """A policy class or features extractor that only its own code understands: a live object of it can be wrapped."""


@dataclass(frozen=True)
class ModelSpec:
    """The plain facts of a model. `name` is how messages call it; `options` are its policy_kwargs that matter."""

    name: str
    algo: str
    policy: str  # dotted class name, a key of POLICY_ALGOS
    observation_space: Space[Any]
    action_space: Space[Any]
    activation: str  # in lower case, a key of networks.ACTIVATIONS
    weights: Mapping[str, NDArray[Any]]
    options: Mapping[str, Any] = field(default_factory=dict)  # squash_output, use_expln, clip_mean
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
