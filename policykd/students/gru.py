"""A recurrent student: normaliser, one gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), a linear head.

For gates r, z and the candidate n, in torch's order and layout (and ONNX's with linear_before_reset = 1):
  r, z = sigmoid(W x + b + U h)
  n    = tanh(W_n x + b_n + r * (U_n h + c))
  h'   = n + z * (h - n)
Where it differs from torch.nn.GRU: torch has a second bias beside b in r and z, which says nothing new; here c alone is
left of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor

from policykd.loss.acting import Memory, predict_recurrent
from policykd.loss.distributions import Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.types import Array, Footprint, State
from policykd.students.normaliser import Normaliser
from policykd.students.numpy_backend import gru_shapes
from policykd.students.spec import MemberSpec
from policykd.students.student import Parts, Student, shared_fields, with_log_std

if TYPE_CHECKING:
    from gymnasium import Space


def gru_step(parts: Parts, inputs: Tensor, hidden: Tensor) -> Tensor:
    """The next hidden state [B, H] for normalised inputs [B, I] and the last one [B, H]."""
    n = hidden.shape[1]
    seen = torch.addmm(parts["gru.bias"], inputs, parts["gru.input"].T)
    known = hidden @ parts["gru.state"].T
    gates = torch.sigmoid(seen[:, : 2 * n] + known[:, : 2 * n])
    new = torch.tanh(seen[:, 2 * n :] + gates[:, :n] * (known[:, 2 * n :] + parts["gru.new_bias"]))
    return new + gates[:, n:] * (hidden - new)


def gru_scan(parts: Parts, inputs: Any, hidden: Tensor) -> tuple[Any, Tensor]:
    """Hidden states after each step, and the last [1, B, H], for inputs [B, T, I] or a packed sequence of them, from
    hidden [1, B, H] on; in torch's own kernel, which rounds otherwise than `gru_step`."""
    records = torch.is_grad_enabled() and any(part.requires_grad for part in parts.values())  # cuDNN wants to know
    packed = isinstance(inputs, torch.nn.utils.rnn.PackedSequence)
    like = hidden.new_zeros(2 * hidden.shape[2])
    weights = [parts["gru.input"], parts["gru.state"], parts["gru.bias"], torch.cat([like, parts["gru.new_bias"]])]
    if not packed:
        return torch.gru(inputs, hidden, weights, True, 1, 0.0, records, False, True)
    data, last = torch.gru(inputs.data, inputs.batch_sizes, hidden, weights, True, 1, 0.0, records, False)
    return data, last


@dataclass(frozen=True, eq=False)
class GruStudent(Student):
    """A student with a memory. `parts`: its weights by name (`gru_shapes`); `log_std` [A] or empty."""

    normaliser: Normaliser
    parts: Parts
    log_std: Tensor
    distribution: Distribution
    action_map: ActionMap
    observation_space: Space[Any]
    action_space: Space[Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=torch.Generator, compare=False)
    masked: bool = False
    kind: ClassVar[str] = "gru"
    recurrent: ClassVar[bool] = True

    @property
    def hidden(self) -> int:
        """H, the numbers that it remembers."""
        return int(self.parts["gru.new_bias"].shape[0])

    @property
    def footprint(self) -> Footprint:
        """Parameters, normaliser numbers and multiply-accumulates per action."""
        n_inputs, n_means = self.parts["gru.input"].shape[1], self.parts["head.bias"].shape[0]
        return MemberSpec(1, self.hidden, kind="gru").footprint(n_inputs, n_means)

    def weights(self) -> dict[str, Tensor]:
        """Every weight and bias by its name in the file, without normaliser and log_std."""
        return dict(self.parts)

    def architecture(self) -> dict[str, Any]:
        """The header's `architecture`, without `kind` and `normaliser_limit`."""
        n_inputs, n_means = self.parts["gru.input"].shape[1], self.parts["head.bias"].shape[0]
        return {"inputs": int(n_inputs), "hidden": self.hidden, "outputs": int(n_means)}

    def to(self, device: torch.device | str) -> GruStudent:
        """The same student on another device."""
        parts = {name: part.to(device) for name, part in self.parts.items()}
        generator = torch.Generator(device=device)
        return replace(self, parts=parts, log_std=self.log_std.to(device), generator=generator)

    def initial_state(self, n: int) -> State:
        """The state of n episodes that have not begun: (hidden [1, n, H],)."""
        return (torch.zeros(1, n, self.hidden, device=self.device),)

    @torch.no_grad()
    def step(self, observation: Tensor, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        """Distribution parameters [B, P] and the next state, for packed raw observations [B, *packing.shape];
        `episode_start` [B] says where an episode begins: nothing from before is known there."""
        begins = episode_start.to(self.device, torch.bool).view(-1, 1)
        before = torch.where(begins, torch.zeros((), device=self.device), state[0][0])  # also of a NaN
        inputs = self.normaliser.apply(self.packing.tensor_features(observation))
        hidden = gru_step(self.parts, inputs, before)
        means = torch.addmm(self.parts["head.bias"], hidden, self.parts["head.weight"])
        params = with_log_std(means, self.log_std)
        return params, (hidden.unsqueeze(0),)

    def distribution_params(self, observation: Tensor) -> NoReturn:
        """InputError: an observation alone is not enough."""
        raise InputError(
            "a student with a memory has no parameters for an observation alone: give it whole episodes, step by step, "
            "with step(observation, state, episode_start), or predict(observation, state, episode_start)"
        )

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions and the next state, as RecurrentPPO: without `state` memories are empty, without
        `episode_start` no episode begins. InputError for shapes that do not fit.

        `action_masks`, [n] or [B, n] in MaskablePPO's layout, forbids actions.
        """
        memory = Memory(state, episode_start, action_masks)
        return predict_recurrent(self, observation, memory, deterministic, self.generator)

    @classmethod
    def from_artifact(cls, tensors: dict[str, Array], document: dict[str, Any], device: str = "cpu") -> GruStudent:
        """The inverse of `to_artifact`; shapes were checked by the loader."""
        parts = {name: torch.tensor(np.asarray(tensors[name]), device=device) for name in gru_shapes(1, 1, 1)}
        return cls(parts=parts, **shared_fields(tensors, document, device))
