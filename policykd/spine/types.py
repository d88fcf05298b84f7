"""The contracts between the parts: what a policy, a teacher, a labelled batch and a stop flag are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from policykd.spine.actions import ActionMap
from policykd.spine.packing import Packing

if TYPE_CHECKING:
    import torch
    from gymnasium import Space

    from policykd.loss.distributions import Distribution

Array = NDArray[Any]
State: TypeAlias = "tuple[torch.Tensor, ...]"  # (hidden, cell) of an LSTM, (hidden,) of a GRU, each [layers, B, H]


class Policy(Protocol):
    """What the rollout and the evaluation need of a teacher or a student.

    Observations are raw (the policy owns its normaliser); parameters are a flat tensor [B, P] whose layout
    `distribution` knows; `action_map` turns an action of the distribution into one of the environment.
    """

    @property
    def observation_space(self) -> Space[Any]: ...
    @property
    def action_space(self) -> Space[Any]: ...
    @property
    def distribution(self) -> Distribution: ...
    @property
    def action_map(self) -> ActionMap: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def packing(self) -> Packing:
        """How observations of `observation_space` become one array."""
        ...

    def distribution_params(self, observation: torch.Tensor) -> torch.Tensor:
        """Distribution parameters [B, P], float32, for packed raw observations [B, *packing.shape]; no gradient is
        recorded."""
        ...

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions for one observation or a batch, as in stable-baselines3."""
        ...


@dataclass(frozen=True)
class Turn:
    """Where a batch of B observations stands: `slot` [B] which environment each comes from, `start` [B] whether it is
    the first of its episode, `mask` [B, n] which actions are allowed (None: all)."""

    slot: NDArray[np.int64]
    start: NDArray[np.bool_]
    mask: NDArray[np.bool_] | None = None


class RecurrentPolicy(Policy, Protocol):
    """A policy with a memory. `distribution_params` raises InputError: an observation alone is not enough."""

    def initial_state(self, n: int) -> State:
        """The state of n episodes that have not begun."""
        ...

    def step(self, observation: torch.Tensor, state: State, episode_start: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Parameters [B, P] and the next state, for raw observations [B, *shape]; `episode_start` [B] resets."""
        ...


def is_recurrent(policy: Policy) -> TypeGuard[RecurrentPolicy]:
    """Whether the policy has a memory."""
    return bool(getattr(policy, "recurrent", False))


class TeacherPolicy(Policy, Protocol):
    """A policy that labels."""

    @property
    def deterministic_teacher(self) -> bool:
        """Whether it has no distribution of its own (TD3, DDPG, ARS): its Gaussian has a fixed width."""
        ...

    @property
    def value_teacher(self) -> bool:
        """Whether its logits are Q-values."""
        ...

    @property
    def masked(self) -> bool:
        """Whether it was trained with action masks and needs them to act."""
        ...

    @property
    def recurrent(self) -> bool:
        """Whether it has a memory: then it is a `RecurrentPolicy`."""
        ...


class Progress(Protocol):
    """What long work reports to, and where it learns that it must stop."""

    def check(self) -> None:
        """Raises Interrupted when a stop was asked for. Polled in every loop."""
        ...

    def advance(self, n: int = 1) -> None:
        """n units of the current stage are done."""
        ...


@dataclass(frozen=True)
class Footprint:
    """What a policy costs: `params` weights and biases needed to act (deterministically; no critic, no log_std),
    `constants` numbers of its normaliser, `macs` multiply-accumulates per action."""

    params: int
    constants: int
    macs: int


@dataclass(frozen=True)
class TeacherInfo:
    """What is known of a teacher beside its weights; everything that `policykd inspect` shows."""

    source: str  # as the user gave it
    sha256: str  # of the zip (of the parameters, for a live model)
    algo: str  # ppo, a2c, trpo, dqn, qrdqn, sac, tqc, td3, ddpg, ars ...
    env_id: str | None  # today's id, where the source names one
    trained_on: str | None  # the id as it stands in the source
    layers: tuple[tuple[int, int], ...]  # (inputs, outputs) of each dense layer on the way to the action
    activation: str
    normalised: bool
    gsde: bool
    footprint: Footprint
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    wrappers: tuple[tuple[str, dict[str, Any]], ...] = ()  # of its environment, innermost first, as its files name them
    notes: tuple[str, ...] = ()  # one line each, printed once: an id that was mapped, statistics that were applied
