"""Environments stepped by envpool (opt-in, `policykd[envpool]`): many at once, on threads of its own.

envpool implements the environments itself: spaces and rules are Gymnasium's, random numbers and the last bits of the
physics are not. So seed 7 here is another episode than seed 7 there, and teacher and student are compared on one
backend. A seed is given once for each environment: it determines the first episode, and in turn all later ones. Who
needs one seed per episode (judging) takes one environment per seed, and no later episode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from policykd.rollout.envs import EnvSpec, make_env
from policykd.rollout.vecenv import Bools, Ends, Step, check_finite
from policykd.spine.errors import InputError, brief
from policykd.spine.packing import packing_of
from policykd.spine.spaces import describe_space, same_shape
from policykd.spine.types import Array

_INT32 = 2**31 - 1


class PoolEnvs:
    """N environments of envpool (`BatchEnv`). An episode that ended is followed by the environment's next one at once;
    where `next_seed(slot)` is None, the slot is no longer stepped. Which seed it gives does not matter."""

    mask: Bools | None = None

    def __init__(self, spec: EnvSpec, n_envs: int, next_seed: Callable[[int], int | None]) -> None:
        self.n_envs, self._spec, self._next_seed = n_envs, spec, next_seed
        env = make_env(spec)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        limit = env.spec.max_episode_steps if env.spec is not None else None
        env.close()
        self._packing = packing_of(self.observation_space)
        self._seeds: list[int] = []
        self._pool = self._made([0])
        with _quiet():
            self._dtype = self._pool.single_action_space.dtype
            self._check(limit)
        self._observation = np.zeros((n_envs, *self._packing.shape), self._packing.dtype)
        self._acting = np.ones(n_envs, np.bool_)

    def reset(self, seeds: Sequence[int]) -> Array:
        self._seeds = [int(seed) & _INT32 for seed in seeds]
        self._pool = self._made(self._seeds)
        with _quiet():
            self._observation[...] = self._pool.reset()[0].reshape(self._observation.shape)
        self._acting[:] = True
        check_finite(self._observation, "observation", self._where)
        return self._observation.copy()

    def step(self, actions: Array) -> Step:
        live = np.flatnonzero(self._acting).astype(np.int32)
        chosen = actions[live].astype(self._dtype, copy=False)
        found, gained, terminated, truncated, _ = self._pool.step(chosen, live)
        reward, done = np.zeros(self.n_envs), np.zeros(self.n_envs, np.bool_)
        reward[live], done[live] = gained, terminated | truncated
        self._observation[live] = found.reshape(len(live), *self._packing.shape)
        check_finite(self._observation, "observation", self._where)
        check_finite(reward, "reward", self._where)
        ends = Ends(np.asarray(terminated, np.bool_)[done[live]], self._observation[done]) if done.any() else None
        again = []
        for slot in np.flatnonzero(done).tolist():
            if self._next_seed(slot) is None:
                self._acting[slot] = False
            else:
                again.append(slot)
        if again:
            first = self._pool.reset(np.array(again, np.int32))[0]
            self._observation[again] = first.reshape(len(again), *self._packing.shape)
            check_finite(self._observation, "observation", self._where)
        success = np.full(self.n_envs, np.nan)
        return Step(self._observation.copy(), reward, done, self._acting.copy(), success, ends=ends)

    def close(self) -> None:
        """Threads end with the pool."""
        self._pool.close()

    def _made(self, seeds: list[int]) -> Any:
        with _quiet():
            return _envpool().make_gymnasium(self._spec.id, num_envs=len(seeds), seed=seeds)

    def _check(self, limit: int | None) -> None:
        """InputError where envpool's environment of this name is another one than Gymnasium's."""
        own = self._pool
        pairs = (
            ("observation", self.observation_space, own.single_observation_space),
            ("action", self.action_space, own.single_action_space),
        )
        for what, expected, found in pairs:
            if not same_shape(expected, found):
                raise InputError(
                    f"env.backend envpool: {brief(self._spec.id)} has the {what} space {describe_space(found)} there, "
                    f"but {describe_space(expected)} in gymnasium; use env.backend=sync"
                )
        found_limit = own.spec.config.max_episode_steps
        if limit is not None and found_limit != limit:
            raise InputError(
                f"env.backend envpool: {brief(self._spec.id)} ends after {found_limit} steps there, but after {limit} "
                "in gymnasium; use env.backend=sync"
            )

    def _where(self, slot: int) -> str:
        seed = self._seeds[slot] if self._seeds else "?"
        return f"env {self._spec.id} of envpool, slot {slot} (begun with seed {seed})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps gymnasium's words on the precision of envpool's bounds, which no user can mend, off the screen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting")
        yield


def pool_has(env_id: str) -> bool:
    """Whether envpool has an environment of this name; InputError where it is not installed."""
    return env_id in _envpool().list_all_envs()


def _envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise InputError(
            f"env.backend envpool: the package is not installed ({brief(error)}): pip install 'policykd[envpool]', or "
            "use env.backend=sync"
        ) from None
    return envpool
