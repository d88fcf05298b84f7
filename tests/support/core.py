"""Small stand-ins for the tests of the core: a counting environment, a silent progress, students, a stub teacher."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policykd.loss.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    SquashedDiagGaussian,
)
from policykd.spine.actions import ActionMap
from policykd.spine.packing import Packing, packing_of
from policykd.spine.spaces import action_map
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser

BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([0.5, 2.0], np.float32))
# family -> (distribution, an action space for it)
FAMILIES: dict[str, tuple[Distribution, spaces.Space[Any]]] = {
    "categorical": (Categorical(3), spaces.Discrete(3, start=-1)),
    "multi": (MultiCategorical((2, 3)), spaces.MultiDiscrete([2, 3])),
    "bernoulli": (Bernoulli(4), spaces.MultiBinary(4)),
    "gaussian": (DiagGaussian(2), BOX),
    "squashed": (SquashedDiagGaussian(2), BOX),
}


class Quiet:
    """A Progress that never stops and counts what was advanced."""

    def __init__(self) -> None:
        self.done = 0

    def check(self) -> None:
        """Never."""

    def advance(self, n: int = 1) -> None:
        self.done += n


def episode_length(key: int) -> int:
    """How long the episode with this key lasts in `Counting`: 1 to 5 steps."""
    return 1 + key * 7 % 5


def next_key(key: int) -> int:
    """The key of the episode that follows when `Counting` is reset without a seed."""
    return (key * 31 + 17) % 1000


def counting_reward(key: int, t: int, action: int) -> float:
    """The reward of acting at time t of an episode."""
    return key + 0.25 * t + 0.001 * action


class Counting(gym.Env[np.ndarray, int]):
    """Observation [key, t]; an episode with key k ends after `episode_length(k)` steps, by truncation when k is odd."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.key, self.t = 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.key = next_key(self.key) if seed is None else seed % 1000
        self.t = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = counting_reward(self.key, self.t, int(action))
        self.t += 1
        over = self.t >= episode_length(self.key)
        info = {"is_success": self.key % 2 == 0} if over else {}
        return self._observation(), reward, over and self.key % 2 == 0, over and self.key % 2 == 1, info

    def _observation(self) -> np.ndarray:
        return np.array([self.key, self.t], np.float32)


def counting_action(observation: np.ndarray) -> np.ndarray:
    """A fixed policy on `Counting`'s observations [B, 2] -> [B]."""
    return (observation.sum(-1).astype(np.int64) % 3).astype(np.int64)


def counting_steps(keys: Iterator[int]) -> Iterator[tuple[int, int, float, bool]]:
    """(key, t, reward, done) of every decision of a plain loop over episodes with these keys."""
    for key in keys:
        length = episode_length(key)
        for t in range(length):
            yield key, t, counting_reward(key, t, (key + t) % 3), t == length - 1


@dataclass
class StubTeacher:
    """A TeacherPolicy whose parameters are any function of the observation."""

    function: Callable[[Tensor], Tensor]
    distribution: Distribution = field(default_factory=lambda: Categorical(3))
    action_space: Any = field(default_factory=lambda: spaces.Discrete(3))
    observation_space: Any = field(default_factory=lambda: Counting.observation_space)
    deterministic_teacher: bool = False
    value_teacher: bool = False
    masked: bool = False
    recurrent: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def packing(self) -> Packing:
        return packing_of(self.observation_space)

    @property
    def action_map(self) -> ActionMap:
        return action_map(self.action_space, unscale=isinstance(self.distribution, SquashedDiagGaussian))

    def distribution_params(self, observation: Tensor) -> Tensor:
        return self.function(observation.float())

    def predict(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def student(name: str, activation: Any = "tanh", *, hidden: tuple[int, ...] = (6, 5), seed: int = 0) -> MlpStudent:
    """A random student on observations Box(3,) for the family `name` of `FAMILIES`."""
    distribution, space = FAMILIES[name]
    rng = np.random.default_rng(seed)
    sizes = [3, *hidden, distribution.n_means]
    layers = tuple(
        (torch.from_numpy(rng.normal(size=(i, o)).astype("f4")), torch.from_numpy(rng.normal(size=o).astype("f4")))
        for i, o in itertools.pairwise(sizes)
    )
    n_log_std = distribution.n_params - distribution.n_means
    return MlpStudent(
        normaliser=Normaliser.measured(rng.normal(1.0, [0.1, 1.0, 20.0], (50, 3))),
        layers=layers,
        log_std=torch.from_numpy(rng.normal(-1, 0.3, n_log_std).astype("f4")),
        activation=activation,
        distribution=distribution,
        action_map=action_map(space, unscale=name == "squashed"),
        observation_space=spaces.Box(-5, 5, (3,), np.float32),
        action_space=space,
        provenance={"policykd": "test"},
    )
