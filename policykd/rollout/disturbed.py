"""Noise, lost observations and late actions around any environments, whatever steps them.

What is drawn follows from the seed of each slot's episode and from the step in it, so it is the same for every policy,
backend and number of workers. Masks are never disturbed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from policykd.rollout.disturbance import Disturbance, bounds, first_choice, neutral
from policykd.rollout.masks import mask_branches
from policykd.rollout.vecenv import BatchEnv, Bools, Step
from policykd.spine.packing import Packing, packing_of
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array

NOISE, DROP = 1, 2  # streams of an episode
_AHEAD, _NUMBERS = 64, 2**16  # steps that are drawn at once, and numbers of one slot at most


class EpisodeSeeds:
    """The seeds that `next_seed` gives, remembered: `now` [N] is that of each slot's last episode."""

    def __init__(self, next_seed: Callable[[int], int | None], n_envs: int) -> None:
        self._next_seed, self._given = next_seed, set[int]()
        self.now = [0] * n_envs

    def __call__(self, slot: int) -> int | None:
        """The seed of the slot's next episode, as in `SyncEnvs`."""
        seed = self._next_seed(slot)
        if seed is not None:
            self.now[slot] = seed
            self._given.add(slot)
        return seed

    def begun(self, slot: int) -> int:
        """The seed of the episode that has begun; a vector class begins it without asking for one."""
        if slot not in self._given:
            self(slot)
        self._given.discard(slot)
        return self.now[slot]


class DisturbedEnvs:
    """`BatchEnv` whose observations are disturbed; `truth` [N, *O] holds what they were before."""

    def __init__(
        self, env: BatchEnv, seeds: EpisodeSeeds, disturbance: Disturbance, packing: Packing | None = None
    ) -> None:
        self._env, self._seeds, self._how = env, seeds, disturbance
        self.n_envs, self.mask = env.n_envs, env.mask
        self.observation_space, self.action_space = env.observation_space, env.action_space
        packing = packing or packing_of(env.observation_space)
        self._spread = None if disturbance.noise is None else disturbance.noise.reshape(packing.shape)
        self.truth = np.zeros((self.n_envs, *packing.shape), packing.dtype)
        self._seen = self.truth
        self._acting = np.ones(self.n_envs, np.bool_)
        self._bounds = bounds(env.observation_space, packing)
        self._bounded = bool(self._bounds.whole.any() or np.isfinite(self._bounds.low).any())
        self._noise = None
        if disturbance.noise is not None:
            self._noise = _Streams(self.n_envs, packing.shape, NOISE)
        self._luck = _Streams(self.n_envs, (), DROP) if disturbance.drop > 0 else None
        self._late: Array | None = None  # actions under way [delay, N, *A], the next to arrive at `_turn`
        self._turn = 0
        self._idle = neutral(self.action_space)
        self._branches = () if self.mask is None else mask_branches(self.action_space)

    def reset(self, seeds: Sequence[int]) -> Array:
        self._seeds.now = [int(seed) for seed in seeds]
        truth = self._env.reset(seeds)
        self._acting[:] = True
        for slot in range(self.n_envs):
            self._begin(slot, self._seeds.now[slot])
        return self._observed(truth, np.ones(self.n_envs, np.bool_))

    def step(self, actions: Array) -> Step:
        step = self._env.step(self._delayed(actions))
        begins = step.acting & (step.done | ~self._acting)
        self._acting = step.acting
        for slot in np.flatnonzero(begins).tolist():
            self._begin(slot, self._seeds.begun(slot))
        seen = self._observed(step.observation, begins)
        return Step(seen, step.reward, step.done, step.acting, step.success, step.mask, step.ends)

    def close(self) -> None:
        self._env.close()

    def _begin(self, slot: int, seed: int) -> None:
        for streams in (self._noise, self._luck):
            if streams is not None:
                streams.begin(slot, seed)
        if self._late is not None:
            self._late[:, slot] = self._idle

    def _observed(self, truth: Array, begins: Bools) -> Array:
        self.truth = seen = truth
        if self._noise is not None and self._spread is not None:
            seen = self._bound(truth + self._spread * self._noise.next()).astype(truth.dtype, copy=False)
        if self._luck is not None:
            lost = (self._luck.next() < self._how.drop) & ~begins
            seen = np.where(lost.reshape(-1, *[1] * (truth.ndim - 1)), self._seen, seen)
        self._seen = seen
        return seen

    def _bound(self, values: Array) -> Array:
        if not self._bounded:
            return values
        limits = self._bounds
        return np.clip(np.where(limits.whole, np.rint(values), values), limits.low, limits.high)

    def _delayed(self, actions: Array) -> Array:
        """What arrives now: the actions [N, *A] of `delay` steps ago."""
        delay = self._how.delay
        if not delay:
            return actions
        if self._late is None:
            self._late = np.empty((delay, *actions.shape), actions.dtype)
            self._late[...] = self._idle
        arriving = self._late[self._turn].copy()
        self._late[self._turn] = actions
        self._turn = (self._turn + 1) % delay
        return arriving if self.mask is None else self._allowed(arriving, self.mask)

    def _allowed(self, actions: Array, mask: Bools) -> Array:
        """Choices that are not allowed any more become the first one that is."""
        start = first_choice(self.action_space).reshape(-1)
        chosen = actions.reshape(self.n_envs, -1) - start
        rows, begin = np.arange(self.n_envs), 0
        for entry, size in enumerate(self._branches):
            allowed = mask[:, begin : begin + size]
            chosen[:, entry] = np.where(allowed[rows, chosen[:, entry]], chosen[:, entry], allowed.argmax(1))
            begin += size
        return np.asarray((chosen + start).reshape(actions.shape).astype(actions.dtype))


class _Streams:
    """Numbers [N, *shape] a step, each slot's from the seed of its episode: normal for noise, uniform for losses.

    They are drawn ahead, many steps at once, which changes nothing in what comes.
    """

    def __init__(self, n: int, shape: tuple[int, ...], which: int) -> None:
        self._which = which
        self._ahead = max(min(_AHEAD, _NUMBERS // max(math.prod(shape), 1)), 1)
        self._drawn = np.zeros((n, self._ahead, *shape), np.float32)
        self._at = np.zeros(n, np.int64)
        self._slots = np.arange(n)
        self._rng: list[np.random.Generator | None] = [None] * n

    def begin(self, slot: int, seed: int) -> None:
        """A new episode of the slot."""
        self._rng[slot] = SeedKey(seed, "disturb").numpy(self._which)
        self._fill(slot)

    def next(self) -> NDArray[np.float32]:
        """Of this step, for every slot."""
        for slot in np.flatnonzero(self._at == self._ahead).tolist():
            self._fill(slot)
        found = self._drawn[self._slots, self._at]
        self._at += 1
        return found

    def _fill(self, slot: int) -> None:
        rng = self._rng[slot]
        assert rng is not None
        draw = rng.standard_normal if self._which == NOISE else rng.random
        self._drawn[slot] = draw(self._drawn.shape[1:], np.float32)
        self._at[slot] = 0
