"""Teachers with a memory: RecurrentPPO's actor, an LSTM between the features and the layers of a plain policy.

Of a critic's own LSTM, or its dense layer in place of one, nothing is needed to act, and nothing is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policykd.loss.acting import Memory, predict_recurrent
from policykd.spine.errors import InputError
from policykd.spine.types import Footprint
from policykd.teachers.base import Array, Forward, Teacher
from policykd.teachers.build import build_network
from policykd.teachers.features import extractor_of
from policykd.teachers.modelspec import ACTOR_CRITIC_ALGOS, RECURRENT_ALGOS, ModelSpec
from policykd.teachers.networks import Fingerprint, Network
from policykd.teachers.tensors import MAX_LAYERS, mismatch, tensor

if TYPE_CHECKING:
    from policykd.spine.types import State

NOTE = (
    "the teacher has a memory (LSTM); a student of kind mlp has none, and sees one observation at a time: with "
    "student.kind=gru it has one too"
)
_PREFIX = "lstm_actor."


@dataclass(frozen=True)
class Lstm:
    """The weights of torch.nn.LSTM. Per layer, one after the other: input [4H, F], hidden [4H, H], and with `biases`
    both biases [4H]."""

    weights: tuple[Tensor, ...]
    layers: int
    biases: bool

    @property
    def hidden(self) -> int:
        """H, the numbers in one layer's state."""
        return self.weights[1].shape[1]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, H) of each layer."""
        step = len(self.weights) // self.layers
        return tuple((weight.shape[1], self.hidden) for weight in self.weights[::step])

    def __call__(self, features: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Latent [B, H] and the next state, for features [B, F]; `start` [B] is 1 where a new episode begins, and the
        state there is forgotten first."""
        keep = (1.0 - start).view(1, -1, 1)
        before = [keep * part for part in state]
        output, hidden, cell = torch.lstm(
            features.unsqueeze(0), before, self.weights, self.biases, self.layers, 0.0, False, False, False
        )
        return output[0], (hidden, cell)


@dataclass(frozen=True)
class RecurrentNetwork(Network):
    """A network whose dense layers take what an LSTM makes of the features."""

    lstm: Lstm

    def __call__(self, leaves: Sequence[Tensor]) -> NoReturn:
        raise InputError(
            "a teacher with a memory (LSTM) has no parameters for an observation alone: give it whole episodes, step "
            "by step, with step(observation, state, episode_start)"
        )

    @property
    def memory(self) -> tuple[int, int]:
        """Layers of the LSTM, and the numbers in one layer's state."""
        return self.lstm.layers, self.lstm.hidden

    def step(self, leaves: Sequence[Tensor], state: State, start: Tensor) -> tuple[Tensor, State]:
        """Parameters [B, P] and the next state, for the leaves [B, *shape] of normalised observations."""
        latent, state = self.lstm(self.extractor(leaves), state, start)
        for layer in self.layers[:-1]:
            latent = layer(latent)
        return self.head(latent, self.layers[-1](latent)), state

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each layer, those of the LSTM first."""
        return self.lstm.sizes + super().sizes

    def footprint(self, constants: int) -> Footprint:
        """What acting by the mode costs, with so many constants in the normaliser."""
        behind = super().footprint(constants)
        macs = sum(weight.numel() for weight in self.lstm.weights if weight.ndim == 2)
        params = sum(weight.numel() for weight in self.lstm.weights)
        return Footprint(behind.params + params, behind.constants, behind.macs + macs)

    def to(self, device: torch.device) -> RecurrentNetwork:
        """The same network with its tensors on `device`."""
        moved = super().to(device)
        assert isinstance(moved, RecurrentNetwork)
        lstm = replace(self.lstm, weights=tuple(weight.to(device) for weight in self.lstm.weights))
        return replace(moved, lstm=lstm)

    def fingerprint(self) -> Fingerprint:
        """A running sha256 over every tensor on the way to the parameters."""
        digest = super().fingerprint().add_text(f"Lstm {self.lstm.layers} {self.lstm.biases}")
        for weight in self.lstm.weights:
            digest.add_tensor(weight)
        return digest


class Remembering(Forward, Protocol):
    """A network with an LSTM: ours, or a policy object with an extractor of its own."""

    @property
    def memory(self) -> tuple[int, int]:
        """Layers of the LSTM, and the numbers in one layer's state."""
        ...

    def step(self, leaves: Sequence[Tensor], state: State, start: Tensor) -> tuple[Tensor, State]:
        """Parameters [B, P] and the next state, for the leaves [B, *shape] of normalised observations."""
        ...


class RecurrentTeacher(Teacher):
    """A teacher with a memory. Who steps it keeps its state: (hidden, cell), each [layers, B, H]."""

    network: Remembering

    @property
    def recurrent(self) -> bool:
        """Whether it must see whole episodes, step by step."""
        return True

    def initial_state(self, n: int) -> State:
        """The state of n episodes that have not begun."""
        layers, hidden = self.network.memory
        zeros = torch.zeros(layers, n, hidden, device=self.device)
        return zeros, zeros.clone()

    @torch.no_grad()
    def step(self, observation: Tensor, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        """Parameters [B, P] and the next state, for raw observations [B, *shape] on `device`; `episode_start` [B] says
        where an episode begins."""
        return self.network.step(self._leaves(observation), state, episode_start.to(self.device, torch.float32))

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions and the next state, as RecurrentPPO: without `state` memories are empty, without
        `episode_start` no episode begins. InputError for shapes that do not fit, and for masks."""
        if action_masks is not None:
            raise InputError(f"{self.info.source}: was trained without action masks, and takes none")
        return predict_recurrent(self, observation, Memory(state, episode_start), deterministic, self._generator)


def is_recurrent(spec: ModelSpec) -> bool:
    """Whether the model has an LSTM."""
    return spec.algo in RECURRENT_ALGOS


def build_recurrent(spec: ModelSpec) -> RecurrentNetwork:
    """The network of a RecurrentPPO model; InputError where its weights do not fit what the model says of itself."""
    lstm = _read_lstm(spec)
    latent = spaces.Box(-np.inf, np.inf, (lstm.hidden,), np.float32)
    weights = {key: value for key, value in spec.weights.items() if "features_extractor." not in key}
    algo = ACTOR_CRITIC_ALGOS[0]
    behind = build_network(replace(spec, algo=algo, observation_space=latent, weights=weights))
    extractor = extractor_of(spec)
    if lstm.sizes[0][0] != extractor.size:
        raise mismatch(spec, f"its LSTM takes {lstm.sizes[0][0]} inputs, but is given {extractor.size}")
    parts: dict[str, Any] = {field.name: getattr(behind, field.name) for field in fields(behind)}
    return RecurrentNetwork(**(parts | {"extractor": extractor}), lstm=lstm)


def _read_lstm(spec: ModelSpec) -> Lstm:
    keys = [key.removeprefix(_PREFIX) for key in spec.weights if key.startswith(_PREFIX)]
    layers = sum(key.startswith("weight_ih_") for key in keys)
    biases = any(key.startswith("bias_") for key in keys)
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if biases else ()))
    names = [f"{kind}_l{index}" for index in range(min(layers, MAX_LAYERS)) for kind in kinds]
    if not names or set(names) != set(keys):
        odd = sorted(set(keys) ^ set(names)) or ["no lstm_actor"]
        raise mismatch(spec, f"lstm_actor is no plain LSTM of at most {MAX_LAYERS} layers ({odd[0][:80]!r})")
    weights = tuple(tensor(spec, _PREFIX + name) for name in names)
    if weights[0].ndim != 2 or weights[1].ndim != 2 or not weights[1].numel():
        raise mismatch(spec, f"lstm_actor has weights of shape {tuple(weights[1].shape)}")
    hidden, inputs = weights[1].shape[1], weights[0].shape[1]
    for name, weight in zip(names, weights, strict=True):
        width = (inputs if name == "weight_ih_l0" else hidden,) if name.startswith("weight") else ()
        if tuple(weight.shape) != (4 * hidden, *width):
            raise mismatch(spec, f"{_PREFIX}{name} has shape {tuple(weight.shape)}, expected {(4 * hidden, *width)}")
    return Lstm(weights, layers, biases)
