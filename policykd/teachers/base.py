"""`Teacher`: raw observations in, distribution parameters and environment actions out. It never trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss import acting
from policykd.loss.distributions import Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.spaces import action_map
from policykd.spine.types import Footprint, TeacherInfo
from policykd.teachers.networks import Fingerprint
from policykd.teachers.normalize import Normalizer

if TYPE_CHECKING:
    from gymnasium import Space

Array = NDArray[Any]


class ActingNetwork(Protocol):
    """From normalised observations [B, *O] to parameters [B, P]: read from a file, or a live policy that is wrapped."""

    @property
    def distribution(self) -> Distribution: ...
    @property
    def kind(self) -> Literal["policy", "value", "deterministic"]: ...
    @property
    def unit_actions(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def sizes(self) -> tuple[tuple[int, int], ...]: ...
    def __call__(self, observation: Tensor) -> Tensor: ...
    def footprint(self, constants: int) -> Footprint: ...
    def to(self, device: torch.device) -> Self: ...
    def fingerprint(self) -> Fingerprint: ...


@dataclass(frozen=True)
class Interface:
    """The spaces a teacher was made for; observations are raw."""

    observation_space: Space[Any]
    action_space: Space[Any]


class Teacher:
    """A trained policy that labels and acts (`policykd.spine.types.Policy`).

    `value_teacher`: the logits are values without a scale of their own (DQN, QR-DQN, discrete ARS), multiplied by
    `logit_scale`. `deterministic_teacher`: a mean with a fixed spread (TD3, DDPG, ARS on a Box). Neither kind has a
    distribution of its own: `predict` takes their mode, as stable-baselines3 does, unless it explores.
    `normalizer` is None or the statistics that are applied to observations.
    """

    def __init__(
        self,
        network: ActingNetwork,
        interface: Interface,
        info: TeacherInfo,
        normalizer: Normalizer | None = None,
        *,
        logit_scale: float = 1.0,
    ) -> None:
        self.info = info
        self.network = network
        self.normalizer = normalizer
        self.logit_scale = logit_scale
        self._interface = interface
        self._action_map = action_map(interface.action_space, unscale=network.unit_actions)
        self._device = network.device
        self._normalise = normalizer.tensors(self._device) if normalizer else None
        self._generator = torch.Generator(self._device)
        self._generator.manual_seed(0)
        _check_normalizer(normalizer, interface, info)

    @property
    def observation_space(self) -> Space[Any]:
        """The space of raw observations."""
        return self._interface.observation_space

    @property
    def action_space(self) -> Space[Any]:
        """The environment's action space."""
        return self._interface.action_space

    @property
    def distribution(self) -> Distribution:
        """The layout of the parameters."""
        return self.network.distribution

    @property
    def action_map(self) -> ActionMap:
        """From an action of the distribution to one of the environment."""
        return self._action_map

    @property
    def device(self) -> torch.device:
        """Where the weights lie and observations are expected."""
        return self._device

    @property
    def value_teacher(self) -> bool:
        """Whether the logits are values (Q-values, scores) that a softmax has no scale for."""
        return self.network.kind == "value"

    @property
    def deterministic_teacher(self) -> bool:
        """Whether the spread of the Gaussian is ours and not the teacher's."""
        return self.network.kind == "deterministic"

    @property
    def fingerprint(self) -> str:
        """sha256 of the parameters and the normaliser, whatever file they came from and whatever the logit scale."""
        digest = self.network.fingerprint()
        if self.normalizer is not None:
            digest.add_text(repr(self.normalizer.to_json()))
        return digest.hexdigest()

    def distribution_params(self, observation: Tensor) -> Tensor:
        """Parameters [B, P], float32, for raw observations [B, *shape] of any numeric dtype on `device`."""
        if tuple(observation.shape[1:]) != self.observation_space.shape:
            expected = self.observation_space.shape
            raise InputError(f"observations have shape {tuple(observation.shape)}, expected (B, *{expected})")
        with torch.no_grad():
            params = self.network(self._normalise(observation) if self._normalise else observation)
            return params if self.logit_scale == 1.0 else params * self.logit_scale

    def predict(
        self,
        observation: Array,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions for one observation or a batch; `state` is handed back as it came."""
        mode = deterministic or self.network.kind != "policy"
        return acting.predict(self, observation, deterministic=mode, generator=self._generator), state

    def seed(self, seed: int) -> None:
        """Restart the random numbers of stochastic actions."""
        self._generator.manual_seed(seed)

    def to(self, device: str | torch.device) -> Teacher:
        """The same teacher on another device, with random numbers that start anew."""
        network = self.network.to(torch.device(device))
        return Teacher(network, self._interface, self.info, self.normalizer, logit_scale=self.logit_scale)

    def with_logit_scale(self, scale: float) -> Teacher:
        """A teacher whose logits are `scale` (1 / temperature) times the values; InputError unless `value_teacher`."""
        if not self.value_teacher:
            raise InputError(f"{self.info.source}: has a distribution of its own; logit_scale is for Q-value teachers")
        if not 0 < scale < float("inf"):
            raise InputError(f"logit_scale is {scale}, expected a positive number")
        return Teacher(self.network, self._interface, self.info, self.normalizer, logit_scale=scale)

    def with_info(self, **changes: Any) -> Teacher:
        """The same teacher with some fields of its `info` replaced."""
        info = replace(self.info, **changes)
        return Teacher(self.network, self._interface, info, self.normalizer, logit_scale=self.logit_scale)


def _check_normalizer(normalizer: Normalizer | None, interface: Interface, info: TeacherInfo) -> None:
    shape = interface.observation_space.shape
    if normalizer is not None and normalizer.mean.shape != shape:
        raise InputError(
            f"{info.source}: statistics are for observations of shape {normalizer.mean.shape}, but the teacher takes "
            f"{shape}: pass the vecnormalize.pkl that was saved with this teacher"
        )
