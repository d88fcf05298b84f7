"""Whole episodes on given seeds: a fixed set, every one run to its end, so that short ones are not favoured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from policykd.evaluation.actors import Actor, chosen, policy_actor, random_actor
from policykd.evaluation.smoothness import Changes
from policykd.rollout.envs import EnvSpec
from policykd.rollout.vecenv import Bools, Floats, make_batch
from policykd.spine.errors import InputError
from policykd.spine.types import Array, Progress, Turn

__all__ = ["Actor", "Episodes", "policy_actor", "random_actor", "run_episodes"]
_SLOTS = 32
_POOL = 128  # environments of envpool at once, one a seed
_VISITED_BYTES = 2**26  # of states that are kept: 20,000 images would take half a gigabyte
MAX_STEPS = 100_000  # an episode that is longer will not end; Atari's longest have 27,000 decisions


@dataclass(frozen=True)
class Episodes:
    """Per seed, in the order of the seeds: returns [E], lengths [E], success [E] (NaN where `info` does not say),
    `change` [E] (how far its actions moved in all, `policykd.evaluation.smoothness`), and
    `visited`, an even sample [K, *O] of the raw observations that the policy acted on, with `masks` [K, n] of what was
    allowed there (None without masks)."""

    returns: Floats
    lengths: NDArray[np.int64]
    success: Floats
    change: Floats
    visited: Array
    masks: Bools | None = None

    @property
    def success_rate(self) -> float | None:
        """Mean of `success`, or None when any episode does not say."""
        return None if np.isnan(self.success).any() else float(self.success.mean())


class _Visited:
    """Keeps an even sample of the states that were acted on: when there are too many, every second batch goes."""

    def __init__(self, bound: int, share: int) -> None:
        self._bytes, bound = _VISITED_BYTES // share, -(-bound // share)
        self._bound, self._kept, self._stride, self._count = bound, 0, 1, 0
        self._parts: list[tuple[Array, Bools | None]] = []

    def add(self, observation: Array, mask: Bools | None) -> None:
        if self._bound and self._count % self._stride == 0:
            self._bound = min(self._bound, max(self._bytes // max(observation[0].nbytes, 1), 1))
            self._parts.append((observation.copy(), mask))
            self._kept += len(observation)
            if self._kept > self._bound and len(self._parts) > 1:
                self._parts, self._stride = self._parts[::2], 2 * self._stride
                self._kept = sum(len(part) for part, _ in self._parts)
        self._count += 1

    def all(self, like: Array) -> Array:
        return np.concatenate([part for part, _ in self._parts]) if self._parts else like[:0]

    def masks(self) -> Bools | None:
        found = [mask for _, mask in self._parts if mask is not None]
        return np.concatenate(found) if found else None


def run_episodes(
    spec: EnvSpec, actor: Actor, seeds: Sequence[int], progress: Progress, *, keep_visited: int = 0, share: int = 1
) -> Episodes:
    """One episode per seed, in single environments whatever the backend of collection, since a vector class has no seed
    for each episode; in worker processes where the backend is async, with the same results. With envpool, one of its
    environments per seed: the episodes are not those of the other backends.

    About `keep_visited` of the states are kept, fewer where they are large: at most 64 MB. `share`: of how many calls,
    which keep so many together.
    Raises NumericsError for a NaN and Interrupted when asked to stop.
    """
    if spec.backend == "envpool":
        blocks = [seeds[begin : begin + _POOL] for begin in range(0, len(seeds), _POOL)]
        share *= max(len(blocks), 1)
        return joined_episodes([_run(spec, actor, block, progress, _Visited(keep_visited, share)) for block in blocks])
    single = spec if spec.backend == "async" else replace(spec, backend="sync")
    return _run(single, actor, seeds, progress, _Visited(keep_visited, share))


def joined_episodes(parts: Sequence[Episodes]) -> Episodes:
    """The episodes of several calls, one after the other."""
    if len(parts) == 1:
        return parts[0]
    masks = [part.masks for part in parts if part.masks is not None]
    returns, lengths, success, change, visited = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("returns", "lengths", "success", "change", "visited")
    )
    return Episodes(returns, lengths, success, change, visited, np.concatenate(masks) if masks else None)


def _run(spec: EnvSpec, actor: Actor, seeds: Sequence[int], progress: Progress, visited: _Visited) -> Episodes:
    slots = len(seeds) if spec.backend == "envpool" else min(len(seeds), _SLOTS)
    episode = np.arange(slots)  # which seed each slot runs; a slot that ends takes the next one
    waiting = iter(range(slots, len(seeds)))

    def next_seed(slot: int) -> int | None:
        episode[slot] = next(waiting, -1)
        return None if episode[slot] < 0 else seeds[episode[slot]]

    env = make_batch(spec, slots, next_seed)
    returns, lengths, success = _tables(len(seeds))
    changes = Changes(env.action_space, len(seeds))
    try:
        observation, acting, start = env.reset(seeds[:slots]), np.ones(slots, np.bool_), np.ones(slots, np.bool_)
        actions: Array | None = None
        while acting.any():
            progress.check()
            live = np.flatnonzero(acting)
            turn = Turn(live, start[live], None if env.mask is None else env.mask[live])
            visited.add(observation[live], turn.mask)
            done_now = chosen(actor, observation[live], turn)
            if actions is None:
                actions = np.zeros((slots, *done_now.shape[1:]), done_now.dtype)
            actions[live] = done_now
            changes.add(actions, acting & ~start, episode)
            running = episode[live]
            _must_end(spec, lengths[running])
            step = env.step(actions)
            returns[running] += step.reward[live]
            lengths[running] += 1
            success[running] = np.where(step.done[live], step.success[live], success[running])
            observation, acting, start = step.observation, step.acting, step.done
            progress.advance(int(step.done.sum()))
    finally:
        env.close()
    return Episodes(returns, lengths, success, changes.total(), visited.all(observation), visited.masks())


def _must_end(spec: EnvSpec, lengths: NDArray[np.int64]) -> None:
    if lengths.max() >= MAX_STEPS:
        raise InputError(
            f"env {spec.id}: an episode did not end within {MAX_STEPS} steps; bound it with env.wrappers="
            "[{TimeLimit: {max_episode_steps: N}}]"
        )


def _tables(n: int) -> tuple[Floats, NDArray[np.int64], Floats]:
    return np.zeros(n), np.zeros(n, np.int64), np.full(n, np.nan)
