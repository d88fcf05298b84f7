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
MASKABLE = "MaskableActorCriticPolicy"
MASKABLE_ALGOS = ("maskable_ppo",)
RECURRENT = "RecurrentActorCriticPolicy"
RECURRENT_ALGOS = ("recurrent_ppo",)

_BASE, _CONTRIB = "stable_baselines3", "sb3_contrib"
_OFF_POLICY = {  # package of the policies: (the class of vectors, its algorithms)
    f"{_BASE}.dqn": ("DQNPolicy", ("dqn",)),
    f"{_BASE}.sac": ("SACPolicy", ("sac",)),
    f"{_BASE}.td3": ("TD3Policy", ("td3", "ddpg")),
    f"{_CONTRIB}.qrdqn": ("QRDQNPolicy", ("qrdqn",)),
    f"{_CONTRIB}.tqc": ("TQCPolicy", ("tqc",)),
}

POLICY_ALGOS = {
    **{
        f"{_BASE}.common.policies.{name}": ACTOR_CRITIC_ALGOS
        for name in (ACTOR_CRITIC, "ActorCriticCnnPolicy", "MultiInputActorCriticPolicy")
    },
    **{
        f"{_CONTRIB}.common.{kind}.policies.{name}": algos
        for kind, word, algos in (("maskable", "Maskable", MASKABLE_ALGOS), ("recurrent", "Recurrent", RECURRENT_ALGOS))
        for name in (f"{word}{ACTOR_CRITIC}", f"{word}ActorCriticCnnPolicy", f"{word}MultiInputActorCriticPolicy")
    },
    **{
        f"{package}.policies.{name}": algos
        for package, (vectors, algos) in _OFF_POLICY.items()
        for name in (vectors, "CnnPolicy", "MultiInputPolicy")
    },
    f"{_CONTRIB}.crossq.policies.CrossQPolicy": ("crossq",),
    f"{_CONTRIB}.ars.policies.ARSPolicy": ("ars",),
    f"{_CONTRIB}.ars.policies.ARSLinearPolicy": ("ars",),
}
"""Policy classes that are understood, and the algorithms that use them."""


EXTRACTORS = tuple(
    f"{_BASE}.common.torch_layers.{name}" for name in ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
)
"""Features extractors that are understood."""


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
    options: Mapping[str, Any] = field(default_factory=dict)  # squash_output, use_expln, clip_mean,
    # normalize_images, batch_norm_eps
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
