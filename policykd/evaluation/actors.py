"""Who acts in an episode: a policy, or chance, in both cases only as the environment's masks allow."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policykd.loss.acting import act
from policykd.loss.masking import masked_params
from policykd.rollout.masks import mask_branches
from policykd.spine.seeding import SeedKey
from policykd.spine.spaces import action_map
from policykd.spine.types import Array, Policy, Turn

if TYPE_CHECKING:
    import gymnasium as gym

Actor = Callable[..., Array]
"""Raw observations [B, *O] -> environment actions [B, ...]; those made here take the `Turn` as well."""


@dataclass(frozen=True)
class PolicyActor:
    """A teacher or student acting on batches."""

    policy: Policy
    deterministic: bool
    generator: torch.Generator

    def __call__(self, observation: Array, turn: Turn | None = None) -> Array:
        """Environment actions [B, ...] for raw observations [B, *O]."""
        mask = None if turn is None else turn.mask
        params = masked_params(self.policy, torch.from_numpy(observation).to(self.policy.device), mask)
        return act(self.policy, params, deterministic=self.deterministic, generator=self.generator)


class RandomActor:
    """Uniform over what is allowed; without masks as `space.sample` draws it."""

    def __init__(self, space: gym.Space[Any], seed: int) -> None:
        self._space = deepcopy(space)
        self._space.seed(seed)
        self._rng = SeedKey(seed, "random").numpy()

    def __call__(self, observation: Array, turn: Turn | None = None) -> Array:
        """Environment actions [B, ...], whatever the observations [B, *O] are."""
        if turn is None or turn.mask is None:
            return np.stack([np.asarray(self._space.sample()) for _ in range(len(observation))])
        drawn = np.where(turn.mask, self._rng.random(turn.mask.shape), -1.0)
        parts = np.split(drawn, np.cumsum(mask_branches(self._space))[:-1], -1)
        actions = np.stack([part.argmax(-1) for part in parts], -1)
        to_env = action_map(self._space, unscale=False)
        return to_env(actions[:, 0] if to_env.kind == "discrete" else actions)


def policy_actor(policy: Policy, deterministic: bool, seed: int) -> Actor:
    """How a teacher or student acts on a batch. A teacher without a distribution of its own acts by the mode."""
    deterministic = deterministic or any(
        getattr(policy, f"{kind}_teacher", False) for kind in ("value", "deterministic")
    )
    return PolicyActor(policy, deterministic, SeedKey(seed, "act").torch(policy.device))


def random_actor(space: gym.Space[Any], seed: int) -> Actor:
    """The uniformly random policy."""
    return RandomActor(space, seed)


def chosen(actor: Actor, observation: Array, turn: Turn) -> Array:
    """What the actor does now; a plain function of the observation is told nothing more."""
    return actor(observation, turn) if isinstance(actor, PolicyActor | RandomActor) else actor(observation)
