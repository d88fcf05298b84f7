"""Who acts in an episode: a policy, or chance, in both cases only as the environment's masks allow."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from policykd.loss.acting import act
from policykd.loss.masking import apply_mask, masked_params
from policykd.rollout.draws import mode
from policykd.rollout.kernels import kernel_of, params_of
from policykd.rollout.masks import mask_branches
from policykd.spine.seeding import SeedKey
from policykd.spine.spaces import action_map
from policykd.spine.types import Array, Policy, RecurrentPolicy, State, Turn, is_recurrent

if TYPE_CHECKING:
    import gymnasium as gym

Actor = Callable[..., Array]
"""Raw observations [B, *O] -> environment actions [B, ...]; those made here take the `Turn` as well."""


class PolicyActor:
    """A teacher or student acting on batches; of a policy with a memory each slot's state is kept here.

    A plain MLP on the CPU is computed in NumPy (`policykd.rollout.kernels`), whatever was collected with.
    """

    takes_turn = True

    def __init__(self, policy: Policy, deterministic: bool, generator: torch.Generator) -> None:
        self.policy = policy
        self._deterministic, self._generator = deterministic, generator
        self._kernel = kernel_of(policy)
        self._state: State | None = None  # of every slot seen so far, [layers, slots, H] each

    def __call__(self, observation: Array, turn: Turn | None = None) -> Array:
        """Environment actions [B, ...] for raw observations [B, *O]."""
        if self._kernel is None or not self._deterministic or (turn is not None and turn.mask is not None):
            return self.act(self.params(observation, turn))
        return self.policy.action_map(mode(self.policy.distribution, self._kernel.means(observation)))

    def params(self, observation: Array, turn: Turn | None = None) -> Tensor:
        """Distribution parameters [B, P], masked where there are masks; a policy with a memory takes one step."""
        seen = torch.from_numpy(observation).to(self.policy.device)
        if is_recurrent(self.policy):
            if turn is None:
                raise ValueError("a policy with a memory needs to know which episode an observation belongs to")
            return self._remember(self.policy, seen, turn)
        if self._kernel is not None and (turn is None or turn.mask is None):
            return torch.from_numpy(params_of(self._kernel, observation))
        return masked_params(self.policy, seen, None if turn is None else turn.mask)

    def act(self, params: Tensor) -> Array:
        """Environment actions [B, ...] for parameters [B, P]."""
        return act(self.policy, params, deterministic=self._deterministic, generator=self._generator)

    def _remember(self, policy: RecurrentPolicy, observation: Tensor, turn: Turn) -> Tensor:
        slot = torch.from_numpy(turn.slot).to(policy.device)
        state = self._state or policy.initial_state(0)
        missing = max(int(turn.slot.max()) + 1 - state[0].shape[1], 0)
        state = _joined(state, policy.initial_state(missing))
        params, now = policy.step(observation, tuple(part[:, slot] for part in state), torch.from_numpy(turn.start))
        for whole, part in zip(state, now, strict=True):
            whole[:, slot] = part
        self._state = state
        return params if turn.mask is None else apply_mask(policy.distribution, params, turn.mask)


def _joined(state: State, more: State) -> State:
    return tuple(torch.cat(pair, 1) for pair in zip(state, more, strict=True))


class RandomActor:
    """Uniform over what is allowed; without masks as `space.sample` draws it."""

    takes_turn = True

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
    return actor(observation, turn) if getattr(actor, "takes_turn", False) else actor(observation)
