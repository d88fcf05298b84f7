"""What the vector versions share: slots with generators of their own, time limits and Gymnasium's NEXT_STEP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Env, Space, logger
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Batch(NamedTuple):
    """How large a vector environment is and how long its episodes last."""

    num_envs: int
    max_episode_steps: int
    render_mode: str | None


class BatchEnv(VectorEnv[Any, Any, Any], ABC):
    """N environments in array operations. Slot i, seeded with s, plays what the single version plays from
    `reset(seed=s)` on: later episodes go on with the slot's generator, as the single version's `reset()` does.

    After the step that ends an episode, the next step ignores the slot's action and hands out the first observation of
    the next episode with reward 0 (NEXT_STEP, as `gymnasium.vector.SyncVectorEnv` with the single version).

    A class says how slots start (`_start`), move (`_advance`) and are seen (`_observe`, `_info`).
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own form)
        "render_modes": ["rgb_array"],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, batch: Batch, observation_space: Space[Any], action_space: Space[Any]) -> None:
        if batch.num_envs < 1:
            raise ValueError(f"num_envs is {batch.num_envs}, expected at least 1")
        if batch.render_mode not in {None, "rgb_array"}:
            raise ValueError(f"render_mode is {batch.render_mode!r}, expected rgb_array or None; one window holds one")
        self.num_envs, self.max_episode_steps, self.render_mode = batch
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self.steps = np.zeros(self.num_envs, np.int64)
        self._generators: list[np.random.Generator] = []
        self._done = np.zeros(self.num_envs, np.bool_)
        self._painter: Any = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """New episodes in every slot: seed s means s + i for slot i, None that each goes on with its generator.

        `options` are the single version's, for these first episodes only. ValueError for a list of another length.
        """
        seeds = _spread(seed, self.num_envs)
        if not self._generators:
            self._generators = [seeding.np_random(one)[0] for one in seeds]
        else:
            for slot, one in enumerate(seeds):
                if one is not None:
                    self._generators[slot] = seeding.np_random(one)[0]
        self._allocate()
        for slot, generator in enumerate(self._generators):
            self._start(slot, generator, options)
        self.steps[:] = 0
        self._done = np.zeros(self.num_envs, np.bool_)
        return self._observe(), self._info()

    def step(self, actions: Any) -> tuple[Any, Floats, Bools, Bools, dict[str, Any]]:
        """Observation [N, ...], reward [N] float64, terminated [N], truncated [N], info."""
        if not self._generators:
            raise ResetNeeded("step before reset: call reset first")
        starting = self._done
        reward, terminated = self._advance(actions)
        self.steps += 1
        if starting.any():
            for slot in np.flatnonzero(starting).tolist():
                self._start(slot, self._generators[slot], None)
            self.steps[starting] = 0
            reward[starting] = 0.0
            terminated &= ~starting
        truncated = self.steps >= self.max_episode_steps
        self._done = terminated | truncated
        return self._observe(), reward, terminated, truncated, self._info()

    def render(self) -> tuple[Any, ...] | None:
        """A frame [H, W, 3] for each slot, painted by the single version; None without a render mode."""
        if self.render_mode is None:
            logger.warn("render without a render mode: make the environment with render_mode='rgb_array'")
            return None
        if self._painter is None:
            self._painter = self._single()
        return tuple(self._paint(self._painter, slot) for slot in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Closes what painted the frames."""
        if self._painter is not None:
            self._painter.close()

    @abstractmethod
    def _allocate(self) -> None:
        """Makes the arrays that hold the slots' state."""

    @abstractmethod
    def _start(self, slot: int, generator: np.random.Generator, options: dict[str, Any] | None) -> None:
        """Puts a slot at the start of an episode, with the single version's draws in its order."""

    @abstractmethod
    def _advance(self, actions: Any) -> tuple[Floats, Bools]:
        """Moves every slot (those that start anew are overwritten): reward [N], terminated [N], fresh arrays."""

    @abstractmethod
    def _observe(self) -> Any:
        """Observations of every slot, in arrays that nobody writes to later."""

    def _info(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def _single(self) -> Env[Any, Any]:
        """A single version with render_mode rgb_array."""

    @abstractmethod
    def _paint(self, painter: Any, slot: int) -> Any:
        """The slot's frame, by a single version that is put into its state."""


def _spread(seed: int | Sequence[int | None] | None, n: int) -> list[int | None]:
    """A seed for each slot."""
    if seed is None:
        return [None] * n
    if isinstance(seed, int | np.integer):
        return [int(seed) + slot for slot in range(n)]
    seeds = [None if one is None else int(one) for one in seed]
    if len(seeds) != n:
        raise ValueError(f"seed is a list of {len(seeds)}, expected {n}: one for each environment")
    return seeds
