"""One contract over every way of stepping environments, with episode boundaries that mean the same everywhere.

After `step`, `observation` is what the next action is for, except where `acting` is False: there the next action is
ignored (NEXT_STEP hands out the last observation of the finished episode first), nothing may be labelled, and no
timestep is counted. `done` marks the real step that ended an episode; `reward` of an ignored step is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policykd.rollout.envs import EnvSpec, make_env, make_native
from policykd.rollout.masks import ACTION_MASKS, mask_branches
from policykd.spine.errors import InputError, NumericsError
from policykd.spine.masks import as_mask
from policykd.spine.packing import Packing, packing_of
from policykd.spine.types import Array

if TYPE_CHECKING:
    import gymnasium as gym

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
_FEW = 4096  # numbers whose scalar product is made on one thread


@dataclass(frozen=True)
class Ends:
    """How the K episodes of a step's `done` ended, in the order of their slots: `terminated` [K] by the environment's
    own rules, else they were cut off; `observation` [K, *O] the last one of each, for which there is no action."""

    terminated: Bools
    observation: Array


@dataclass(frozen=True)
class Step:
    """What N environments answered, in arrays that nobody writes to any more; several steps may share them.

    observation [N, *O], reward [N], done [N], acting [N], success [N] (NaN where the environment does not say, or the
    episode goes on), mask [N, n] of allowed next actions (None without masks), ends: of `done`, where any is.
    """

    observation: Array
    reward: Floats
    done: Bools
    acting: Bools
    success: Floats
    mask: Bools | None = None
    ends: Ends | None = None


class BatchEnv(Protocol):
    """N environments of one kind that reset themselves."""

    n_envs: int
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    mask: Bools | None  # [N, n] the actions allowed now; None without masks

    def reset(self, seeds: Sequence[int]) -> Array:
        """First observations [N, *O]."""
        ...

    def step(self, actions: Array) -> Step:
        """Acts in every environment."""
        ...

    def close(self) -> None:
        """Releases the environments."""
        ...


class SyncEnvs:
    """Single environments stepped one after the other; each episode has a seed of its own.

    `next_seed(slot)` gives the seed with which a slot starts its next episode; None retires the slot: it is no longer
    stepped, and its rows stay as they are with `acting` False.
    """

    def __init__(self, spec: EnvSpec, n_envs: int, next_seed: Callable[[int], int | None]) -> None:
        self.envs = [make_env(spec) for _ in range(n_envs)]
        self.n_envs = n_envs
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        self._next_seed = next_seed
        self._id = spec.id
        self._seeds = [0] * n_envs
        self._packing = spec.packing or packing_of(self.observation_space)
        self._observation = np.zeros((n_envs, *self._packing.shape), self._packing.dtype)
        self._acting = np.ones(n_envs, np.bool_)
        self._live = list(range(n_envs))  # the slots that are stepped
        self._going, self._unknown = np.zeros(n_envs, np.bool_), np.full(n_envs, np.nan)  # of a step that ends nothing
        self._choices = mask_branches(self.action_space) if spec.masked else ()
        self.mask: Bools | None = np.ones((n_envs, sum(self._choices)), np.bool_) if spec.masked else None

    @property
    def observation(self) -> Array:
        """What `step` handed out last [N, *O]; a view."""
        return self._observation

    def reset(self, seeds: Sequence[int]) -> Array:
        self.start(enumerate(seeds))
        return self._observation.copy()

    def start(self, episodes: Iterable[tuple[int, int]]) -> None:
        """New episodes in some slots, retired ones too: (slot, seed) each."""
        self._acting = self._acting.copy()
        for slot, seed in episodes:
            self._start(slot, seed)
            self._acting[slot] = True
        self._live = np.flatnonzero(self._acting).tolist()
        check_finite(self._observation, "observation", self._where)

    def step(self, actions: Array) -> Step:
        n = self.n_envs
        reward, done, success = np.zeros(n), self._going, self._unknown
        plain, seen = self._packing.plain, self._observation
        ended = list[tuple[bool, Array]]()
        for slot in self._live:
            try:
                observation, reward[slot], terminated, truncated, info = self.envs[slot].step(actions[slot])
            except Exception as error:
                raise self._raised(error, slot) from error
            seen[slot] = observation if plain else self._packing.pack(observation)
            if terminated or truncated:
                check_finite(self._observation, "observation", self._where)  # before the reset hides it
                if done is self._going:
                    done, success = done.copy(), success.copy()
                done[slot] = True
                ended.append((bool(terminated), seen[slot].copy()))
                success[slot] = _success(info)
                seed = self._next_seed(slot)
                if seed is None:
                    self._acting = self._acting.copy()
                    self._acting[slot] = False
                    self._live = [other for other in self._live if other != slot]
                else:
                    self._start(slot, seed)
            elif self.mask is not None:
                self._read_mask(slot)
        check_finite(self._observation, "observation", self._where)
        check_finite(reward, "reward", self._where)
        mask = None if self.mask is None else self.mask.copy()
        ends = Ends(np.array([by for by, _ in ended]), np.stack([last for _, last in ended])) if ended else None
        return Step(self._observation.copy(), reward, done, self._acting, success, mask, ends)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _start(self, slot: int, seed: int) -> None:
        self._seeds[slot] = seed
        try:
            observation = self.envs[slot].reset(seed=seed)[0]
        except Exception as error:
            raise self._raised(error, slot) from error
        self._observation[slot] = self._packing.pack(observation)
        self._read_mask(slot)

    def _read_mask(self, slot: int) -> None:
        if self.mask is None:
            return
        try:
            mask = self.envs[slot].get_wrapper_attr(ACTION_MASKS)()
        except Exception as error:
            raise self._raised(error, slot) from error
        self.mask[slot] = as_mask(mask, (), self._choices, self._where(slot))

    def _raised(self, error: Exception, slot: int) -> InputError:
        """The environment's own mistake, with the place; from Python, its traceback is the error's cause."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return InputError(f"{self._where(slot)}: it raised {reason}; mend the environment or its wrappers")

    def _where(self, slot: int) -> str:
        return f"env {self._id}, the episode with seed {self._seeds[slot]}"


class VectorEnvs:
    """A gymnasium.vector.VectorEnv in any of its three autoreset modes."""

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], name: str = "vector environment", packing: Packing | None = None
    ) -> None:
        from gymnasium.vector import AutoresetMode

        self.env, self._name = env, name
        self.mask: Bools | None = None
        self.n_envs = env.num_envs
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self._packing = packing or packing_of(self.observation_space)
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise InputError(f"{name}: metadata['autoreset_mode'] is {mode!r}, expected a gymnasium AutoresetMode")
        self._next_step, self._disabled = mode is AutoresetMode.NEXT_STEP, mode is AutoresetMode.DISABLED
        self._acting = np.ones(self.n_envs, np.bool_)

    def reset(self, seeds: Sequence[int]) -> Array:
        """Native classes take one seed for all: the first."""
        observation = self._packed(self.env.reset(seed=int(seeds[0]))[0])
        self._acting[:] = True
        check_finite(observation, "observation", self._where)
        return np.array(observation)

    def step(self, actions: Array) -> Step:
        seen, reward, terminated, truncated, info = self.env.step(actions)
        observation = self._packed(seen)
        live = self._acting
        done = (np.asarray(terminated) | np.asarray(truncated)) & live
        success = _successes(info, done)
        acting = np.ones(self.n_envs, np.bool_)
        check_finite(observation, "observation", self._where)
        any_done, ends = bool(done.any()), None
        if any_done:
            last = observation[done]
            if info.get("final_obs") is not None:
                last = self._final(info["final_obs"], done).astype(observation.dtype)
                check_finite(last, "observation", lambda _: f"env {self._name}, a final state")
            ends = Ends(np.asarray(terminated, np.bool_)[done], last)
        if self._next_step:
            acting = ~done
        elif self._disabled and any_done:
            observation = self._packed(self.env.reset(options={"reset_mask": done})[0])
            check_finite(observation, "observation", self._where)
        self._acting = acting
        reward = np.where(live, np.asarray(reward, np.float64), 0.0)
        check_finite(reward, "reward", self._where)
        return Step(np.array(observation), reward, done, acting.copy(), success, ends=ends)

    def close(self) -> None:
        self.env.close()

    def _packed(self, observation: Any) -> Array:
        return self._packing.pack_batch(observation).astype(self._packing.dtype, copy=False)

    def _final(self, observations: Any, done: Bools) -> Array:
        """The last observations [K, *O] of the episodes that ended; SAME_STEP gives one object for each slot."""
        if isinstance(observations, dict | tuple):  # of arrays [N, ...]
            return self._packed(observations)[done]
        return np.stack([self._packing.pack(x) for x in np.asarray(observations, object)[done]])

    def _where(self, slot: int) -> str:
        return f"env {self._name}, slot {slot}"


def make_batch(spec: EnvSpec, n_envs: int, next_seed: Callable[[int], int | None]) -> BatchEnv:
    """Fresh environments on the chosen backend, disturbed where the description says so. Fresh, because some
    (BipedalWalker) carry traces over a reset."""
    if spec.disturbance is None or not spec.disturbance.signals:
        return _undisturbed(spec, n_envs, next_seed)
    from policykd.rollout.disturbed import DisturbedEnvs, EpisodeSeeds

    seeds = EpisodeSeeds(next_seed, n_envs)
    return DisturbedEnvs(_undisturbed(spec, n_envs, seeds), seeds, spec.disturbance, spec.packing)


def _undisturbed(spec: EnvSpec, n_envs: int, next_seed: Callable[[int], int | None]) -> BatchEnv:
    if spec.backend == "native":
        return VectorEnvs(make_native(spec, n_envs), spec.id, spec.packing)
    if spec.backend == "async":
        from policykd.rollout.workers import AsyncEnvs

        return AsyncEnvs(spec, n_envs, next_seed)
    if spec.backend == "envpool":
        from policykd.rollout.pool import PoolEnvs

        return PoolEnvs(spec, n_envs, next_seed)
    return SyncEnvs(spec, n_envs, next_seed)


def check_finite(values: Array, quantity: str, where: Callable[[int], str]) -> None:
    """NumericsError naming quantity and place when a row of `values` [N, ...] is not finite."""
    if values.dtype.kind != "f":
        return
    if values.size <= _FEW:  # one call instead of two; a square that overflows is looked at again
        flat = values.reshape(-1)
        with np.errstate(all="ignore"):
            if math.isfinite(flat.dot(flat)):
                return
    if np.isfinite(values).all():
        return
    row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))[0])
    raise NumericsError(
        f"{quantity} is not finite ({values[row]}) in {where(row)}; mend the environment or its wrappers"
    )


def _success(info: dict[str, Any]) -> float:
    for key in ("is_success", "success"):
        if info.get(key) is not None:
            return float(info[key])
    return float("nan")


def _successes(info: dict[str, Any], done: Bools) -> Floats:
    """Success per finished slot. SAME_STEP keeps the finished episode's info under `final_info`."""
    result = np.full(len(done), np.nan)
    source = info.get("final_info", info)
    for key in ("is_success", "success"):
        if isinstance(source, dict) and key in source:
            return np.where(done, np.asarray(source[key], np.float64), result)
    return result
