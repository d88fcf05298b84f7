"""Whole episodes on given seeds: a fixed set, every one run to its end, so that short ones are not favoured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from policykd.loss.acting import act
from policykd.rollout.envs import EnvSpec
from policykd.rollout.vecenv import Floats, SyncEnvs, make_batch
from policykd.spine.errors import InputError
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array, Policy, Progress

if TYPE_CHECKING:
    import gymnasium as gym

_SYNC_SLOTS = 32
MAX_STEPS = 100_000  # an episode that is longer will not end; Atari's longest have 27,000 decisions
Actor = Callable[[Array], Array]  # raw observations [B, *O] -> environment actions [B, ...]


@dataclass(frozen=True)
class Episodes:
    """Per seed, in the order of the seeds: returns [E], lengths [E], success [E] (NaN where `info` does not say), and
    `visited`, an even sample [K, *O] of the raw observations that the policy acted on."""

    returns: Floats
    lengths: NDArray[np.int64]
    success: Floats
    visited: Array

    @property
    def success_rate(self) -> float | None:
        """Mean of `success`, or None when any episode does not say."""
        return None if np.isnan(self.success).any() else float(self.success.mean())


class _Visited:
    """Keeps an even sample of the states that were acted on: when there are too many, every second batch goes."""

    def __init__(self, bound: int) -> None:
        self._bound, self._kept, self._stride, self._count = bound, 0, 1, 0
        self._parts: list[Array] = []

    def add(self, observation: Array) -> None:
        if self._bound and self._count % self._stride == 0:
            self._parts.append(observation.copy())
            self._kept += len(observation)
            if self._kept > self._bound and len(self._parts) > 1:
                self._parts, self._stride = self._parts[::2], 2 * self._stride
                self._kept = sum(len(part) for part in self._parts)
        self._count += 1

    def all(self, like: Array) -> Array:
        return np.concatenate(self._parts) if self._parts else like[:0]


def policy_actor(policy: Policy, deterministic: bool, seed: int) -> Actor:
    """How a teacher or student acts on a batch. A teacher without a distribution of its own acts by the mode."""
    deterministic = deterministic or any(
        getattr(policy, f"{kind}_teacher", False) for kind in ("value", "deterministic")
    )
    generator = SeedKey(seed, "act").torch(policy.device)

    def actor(observation: Array) -> Array:
        params = policy.distribution_params(torch.from_numpy(observation).to(policy.device))
        return act(policy, params, deterministic=deterministic, generator=generator)

    return actor


def random_actor(space: gym.Space[object], seed: int) -> Actor:
    """The uniformly random policy, as `space.sample` draws it."""
    from copy import deepcopy

    own = deepcopy(space)
    own.seed(seed)
    return lambda observation: np.stack([np.asarray(own.sample()) for _ in range(len(observation))])


def run_episodes(
    spec: EnvSpec, actor: Actor, seeds: Sequence[int], progress: Progress, *, keep_visited: int = 0
) -> Episodes:
    """One episode per seed, in single environments whatever the backend of collection: a vector class has no seed for
    each episode.

    Raises NumericsError for a NaN and Interrupted when asked to stop.
    """
    return _run_sync(replace(spec, backend="sync"), actor, seeds, progress, keep_visited)


def _run_sync(spec: EnvSpec, actor: Actor, seeds: Sequence[int], progress: Progress, keep_visited: int) -> Episodes:
    slots = min(len(seeds), _SYNC_SLOTS)
    episode = np.arange(slots)  # which seed each slot runs; a slot that ends takes the next one
    waiting = iter(range(slots, len(seeds)))

    def next_seed(slot: int) -> int | None:
        episode[slot] = next(waiting, -1)
        return None if episode[slot] < 0 else seeds[episode[slot]]

    env = make_batch(spec, slots, next_seed)
    assert isinstance(env, SyncEnvs)
    returns, lengths, success = _tables(len(seeds))
    visited = _Visited(keep_visited)
    try:
        observation, acting = env.reset(seeds[:slots]), np.ones(slots, np.bool_)
        actions: Array | None = None
        while acting.any():
            progress.check()
            live = np.flatnonzero(acting)
            visited.add(observation[live])
            chosen = actor(observation[live])
            if actions is None:
                actions = np.zeros((slots, *chosen.shape[1:]), chosen.dtype)
            actions[live] = chosen
            running = episode[live]
            _must_end(spec, lengths[running])
            step = env.step(actions)
            returns[running] += step.reward[live]
            lengths[running] += 1
            success[running] = np.where(step.done[live], step.success[live], success[running])
            observation, acting = step.observation, step.acting
            progress.advance(int(step.done.sum()))
    finally:
        env.close()
    return Episodes(returns, lengths, success, visited.all(observation))


def _must_end(spec: EnvSpec, lengths: NDArray[np.int64]) -> None:
    if lengths.max() >= MAX_STEPS:
        raise InputError(
            f"env {spec.id}: an episode did not end within {MAX_STEPS} steps; bound it with env.wrappers="
            "[{TimeLimit: {max_episode_steps: N}}]"
        )


def _tables(n: int) -> tuple[Floats, NDArray[np.int64], Floats]:
    return np.zeros(n), np.zeros(n, np.int64), np.full(n, np.nan)
