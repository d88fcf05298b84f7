"""The neutral graph of a student, from which every target is written: ports, layers, head, action map. NumPy only.

  ports     observations in raw units, one port for each leaf of the observation space
  features  numbers as they are (float32), choices one-hot, side by side
  layers    from flat rows to flat rows, one after the other (`policykd.exports.layers`); at most one Gru, which has
            a state
  head      from the last layer's outputs [B, M] to an action of the distribution
  action    from that to an action of the environment

With a mask, what is forbidden has logit -inf. With noise (`stochastic`) the head adds it where a sample is drawn:
  Categorical, MultiCategorical   argmax(logits + gumbel)                        (Gumbel-max trick, Gumbel 1954)
  Bernoulli                       logits + logistic > 0
  DiagGaussian                    mean + exp(log_std) * normal; squashed: the tanh of it
With a Gru the state [B, H] goes in and the next one comes out; `start` [B] says where an episode begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policykd.exports.gru import Gru
from policykd.exports.layers import (
    Activate,
    ChannelsFirst,
    Conv,
    Dense,
    Floats,
    Layer,
    Normalise,
    Parallel,
    Residual,
    Stateless,
    Tree,
    footprint_of,
    width_after,
)
from policykd.spine.actions import ActionMap
from policykd.spine.spaces import SpaceDoc
from policykd.spine.types import Footprint

__all__ = [
    "Activate", "Array", "ChannelsFirst", "Conv", "Dense", "Feed", "Floats", "Graph", "Head", "Law", "Layer",
    "Normalise", "Parallel", "Port", "Residual", "Result", "Stateless", "Tree",
]  # fmt: skip

Array = NDArray[Any]
Law = Literal["gumbel", "logistic", "normal"]


@dataclass(frozen=True)
class Port:
    """One input of the observation: [B, *shape]. `nvec`, `start`: how many choices each entry has and from which
    number on; empty for numbers that are no choices. `dtype` is the environment's."""

    name: str
    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    dtype: str
    nvec: tuple[int, ...] = ()
    start: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers come in."""
        return int(np.prod(self.shape))

    @property
    def n_features(self) -> int:
        """How many features they become."""
        return sum(self.nvec) if self.nvec else self.size


@dataclass(frozen=True, eq=False)
class Head:
    """From outputs [B, M] to an action. `branches`: sizes of the choices (one for Categorical), empty for bits and
    numbers. `log_std` [M]: of a Gaussian, else empty."""

    kind: Literal["choices", "bits", "numbers"]
    size: int  # M
    branches: tuple[int, ...] = ()
    squash: bool = False
    log_std: Floats = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def law(self) -> Law:
        """What noise a sample needs, of each output its own number."""
        return {"choices": "gumbel", "bits": "logistic", "numbers": "normal"}[self.kind]  # type: ignore[return-value]

    @property
    def mask_size(self) -> int:
        """Entries of an action mask: one per choice; two per bit, off then on."""
        return sum(self.branches) if self.kind == "choices" else 2 * self.size if self.kind == "bits" else 0


@dataclass(frozen=True, eq=False)
class Graph:
    """A student as data. `masked`: it takes an action mask [B, n], True = allowed. `stochastic`: it takes noise
    [B, M]. `with_distribution`: the distribution's parameters are outputs as well, before mask and noise.
    `observation_space`, `action_space`: the environment's, with the bounds that ports do not tell; empty: not known.
    ValueError where a layer does not take what comes to it."""

    ports: tuple[Port, ...]
    layers: tuple[Layer, ...]
    head: Head
    action: ActionMap
    masked: bool = False
    stochastic: bool = False
    with_distribution: bool = False
    observation_space: SpaceDoc = field(default_factory=dict)
    action_space: SpaceDoc = field(default_factory=dict)

    def __post_init__(self) -> None:
        width_after(self.layers, self.n_features)

    @property
    def n_features(self) -> int:
        """F, the inputs of the first layer."""
        return sum(port.n_features for port in self.ports)

    @property
    def dense(self) -> tuple[Dense, ...]:
        """The dense layers in their order, without those inside of others."""
        return tuple(layer for layer in self.layers if isinstance(layer, Dense))

    @property
    def gru(self) -> Gru | None:
        """The layer that remembers, where there is one."""
        return next((layer for layer in self.layers if isinstance(layer, Gru)), None)

    @property
    def state_size(self) -> int:
        """H, the numbers that it remembers; 0 where it has no memory."""
        return 0 if self.gru is None else self.gru.size

    @property
    def footprint(self) -> Footprint:
        """Weights and biases, constants of the normaliser, multiply-accumulates of one action."""
        return footprint_of(self.layers)

    @property
    def distribution_names(self) -> tuple[str, ...]:
        """The outputs that `with_distribution` adds: logits, or mean and log_std, each [B, M]."""
        return ("mean", "log_std") if self.head.kind == "numbers" else ("logits",)


@dataclass(frozen=True, eq=False)
class Feed:
    """What goes into a graph: `observations` [B, *shape] for each port, `mask` [B, n] bool, `noise` [B, M] float32; of
    one with a memory `state` [B, H] float32 (None: nothing is remembered) and `start` [B] bool, where episodes begin
    (None: nowhere)."""

    observations: tuple[Array, ...]
    mask: NDArray[np.bool_] | None = None
    noise: Floats | None = None
    state: Array | None = None
    start: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """B."""
        return len(self.observations[0])

    def rows(self, index: Any) -> Feed:
        """The rows of `index` (a slice, positions or booleans)."""
        others = (self.mask, self.noise, self.state, self.start)
        taken = (None if part is None else part[index] for part in others)
        return Feed(tuple(part[index] for part in self.observations), *taken)


@dataclass(frozen=True, eq=False)
class Result:
    """What comes out: `action` [B, *action shape] of the environment, `outputs` [B, M] of the last layer, and the next
    `state` [B, H] of a graph with a memory."""

    action: Array
    outputs: Array
    state: Array | None = None
