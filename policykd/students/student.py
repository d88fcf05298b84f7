"""What all students share, whatever their architecture: raw observations in, normaliser inside, a file of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor

from policykd.loss.acting import predict
from policykd.loss.distributions import Distribution, distribution_from_json
from policykd.spine.actions import ActionMap
from policykd.spine.packing import Packing, packing_of
from policykd.spine.spaces import decode_space, encode_space
from policykd.spine.types import Array, Footprint
from policykd.students.normaliser import Normaliser
from policykd.students.view import Partial, seeing

if TYPE_CHECKING:
    from gymnasium import Space

Parts = Mapping[str, Tensor]
"""The weights of one student by name."""


class Student(ABC):
    """A student that acts: a `policykd.spine.types.Policy`, with `recurrent` a `RecurrentPolicy`.

    `log_std` [A] or empty; `masked`: it learned with action masks, and needs them to act.
    """

    normaliser: Normaliser
    log_std: Tensor
    distribution: Distribution
    action_map: ActionMap
    observation_space: Space[Any]
    action_space: Space[Any]
    provenance: dict[str, Any]
    generator: torch.Generator
    masked: bool
    recurrent: ClassVar[bool] = False

    @property
    @abstractmethod
    def kind(self) -> str:
        """The architecture's name in the file."""
        ...

    @cached_property
    def packing(self) -> Packing:
        """How observations become one array, and its features."""
        return packing_of(self.observation_space)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.log_std.device

    @property
    @abstractmethod
    def footprint(self) -> Footprint:
        """Parameters, normaliser numbers and multiply-accumulates per action."""
        ...

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Every weight and bias by its name in the file, without normaliser and log_std."""
        ...

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """The header's `architecture`, without `kind` and `normaliser_limit`."""
        ...

    @abstractmethod
    def distribution_params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [B, P] for packed raw observations [B, *packing.shape]."""
        ...

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions for one observation or a batch, as `predict` of stable-baselines3 does, and the state,
        which students without a memory hand back as it came.

        `action_masks`, [n] or [B, n] in MaskablePPO's layout, forbids actions.
        """
        return predict(self, observation, deterministic, self.generator, action_masks), state

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process as arrays: torch would hold a file open for every tensor."""
        held: Any = self  # every kind is a frozen dataclass
        sent = {field.name: _sent(getattr(self, field.name)) for field in fields(held) if field.name != "generator"}
        return _received, (type(self), sent)

    @classmethod
    @abstractmethod
    def from_artifact(cls, tensors: dict[str, Array], document: dict[str, Any], device: str = "cpu") -> Student:
        """The inverse of `to_artifact`; shapes were checked by the loader."""
        ...

    def fitted(self, space: Space[Any]) -> Student | Partial:
        """The student for an environment with these observations, which may show more than it sees."""
        return seeing(self, space)

    @abstractmethod
    def to(self, device: torch.device | str) -> Student:
        """The same student on another device."""
        ...

    def signed(self, provenance: dict[str, Any]) -> Self:
        """The same student with this origin."""
        same: Any = self  # every kind is a frozen dataclass
        return cast("Self", replace(same, provenance=provenance))

    def seed(self, seed: int) -> None:
        """Seeds the draws of stochastic actions."""
        self.generator.manual_seed(seed)

    def to_artifact(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Tensors and header document for `save_artifact`."""
        tensors: dict[str, Array] = {"normaliser.mean": self.normaliser.mean, "normaliser.scale": self.normaliser.scale}
        tensors |= {name: weight.cpu().numpy() for name, weight in self.weights().items()}
        if len(self.log_std):
            tensors["log_std"] = self.log_std.cpu().numpy()
        footprint = self.footprint
        limit = {"normaliser_limit": self.normaliser.limit}
        document = {
            "architecture": {"kind": self.kind, **self.architecture(), **limit},
            "observation_space": encode_space(self.observation_space),
            "action_space": encode_space(self.action_space),
            "distribution": self.distribution.to_json(),
            "action_map": self.action_map.to_json(),
            "params": footprint.params,
            "constants": footprint.constants,
            "macs": footprint.macs,
            "provenance": self.provenance,
        }
        if self.masked:
            document["masked"] = True
        return tensors, document


@dataclass(frozen=True)
class _Sent:
    """A tensor on its way to another process."""

    array: Array


def _sent(value: Any) -> Any:
    """The value with every tensor in it as an array."""
    if isinstance(value, Tensor):
        return _Sent(value.cpu().numpy())
    if isinstance(value, dict):
        return {name: _sent(part) for name, part in value.items()}
    return tuple(map(_sent, value)) if isinstance(value, tuple) else value


def _unpacked(value: Any) -> Any:
    """The inverse of `_sent`, on the CPU."""
    if isinstance(value, _Sent):
        return torch.from_numpy(value.array)
    if isinstance(value, dict):
        return {name: _unpacked(part) for name, part in value.items()}
    return tuple(map(_unpacked, value)) if isinstance(value, tuple) else value


def _received(kind: type[Student], sent: dict[str, Any]) -> Student:
    """The student that another process sent."""
    return kind(**_unpacked(sent))


def with_log_std(means: Tensor, log_std: Tensor) -> Tensor:
    """Distribution parameters [..., P] of means [..., M] and a log_std [A], which may be empty."""
    return torch.cat([means, log_std.expand(*means.shape[:-1], -1)], -1) if len(log_std) else means


def shared_fields(tensors: dict[str, Array], document: dict[str, Any], device: str) -> dict[str, Any]:
    """What every student takes from its file; shapes were checked by the loader."""
    limit = float(document["architecture"]["normaliser_limit"])
    log_std = tensors.get("log_std")
    return {
        "normaliser": Normaliser(tensors["normaliser.mean"], tensors["normaliser.scale"], limit),
        "log_std": torch.zeros(0, device=device) if log_std is None else torch.tensor(log_std, device=device),
        "distribution": distribution_from_json(document["distribution"]),
        "action_map": ActionMap.from_json(document["action_map"]),
        "observation_space": decode_space(document["observation_space"]),
        "action_space": decode_space(document["action_space"]),
        "provenance": document["provenance"],
        "generator": torch.Generator(device=device),
        "masked": document.get("masked", False) is True,
    }
