"""`Teacher`: raw observations in, distribution parameters and environment actions out. It never trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss import acting
from policykd.loss.distributions import Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.packing import Leaf, Packing, Path, packing_of
from policykd.spine.spaces import action_map
from policykd.spine.types import TeacherInfo
from policykd.teachers.modelspec import MASKABLE_ALGOS
from policykd.teachers.networks import Fingerprint, Network
from policykd.teachers.normalize import KeyedNormalizer, Normalizer, by_leaf

if TYPE_CHECKING:
    from gymnasium import Space

Array = NDArray[Any]
Kind = Literal["policy", "value", "deterministic"]


class Forward(Protocol):
    """What computes a teacher's parameters: `networks.Network`, a module or function of the user's, an ONNX session.

    `kind`: policy (a distribution of its own), value (the logits are values without a scale), deterministic (a mean
    with a fixed spread). `unit_actions`: actions lie in [-1, 1] and are unscaled to the space. `adds_start`: the
    first action is the `start` of the action space (stable-baselines3 sends 0 whatever the space says).
    """

    @property
    def distribution(self) -> Distribution: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def unit_actions(self) -> bool: ...
    @property
    def adds_start(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...

    def __call__(self, leaves: Sequence[Tensor]) -> Tensor:
        """Parameters [B, P], float32, for the leaves [B, *shape] of observations that are normalised already; no
        gradient."""
        ...

    def to(self, device: torch.device) -> Forward:
        """The same on another device."""
        ...

    def fingerprint(self) -> Fingerprint:
        """A running sha256 over everything on the way to the parameters."""
        ...


@dataclass(frozen=True)
class Interface:
    """The spaces a teacher acts in; observations are raw.

    `channels_last`: places of the images in the packing that the environment gives as (height, width, channels) and
    the network takes as (channels, height, width).
    """

    observation_space: Space[Any]
    action_space: Space[Any]
    channels_last: frozenset[int] = frozenset()


class Teacher:
    """A trained policy that labels and acts (`policykd.spine.types.Policy`).

    `value_teacher`: the logits are values without a scale of their own (DQN, QR-DQN, discrete ARS), multiplied by
    `logit_scale`. `deterministic_teacher`: a mean with a fixed spread (TD3, DDPG, ARS on a Box). Neither kind has a
    distribution of its own: `predict` takes their mode, as stable-baselines3 does, unless it explores.
    `normalizer` is None or the statistics that are applied to observations. `leaves`: those of `packing` that it looks
    at, all of them unless the environment is seen in two ways.
    """

    def __init__(
        self,
        network: Forward,
        interface: Interface,
        info: TeacherInfo,
        normalizer: Normalizer | KeyedNormalizer | None = None,
        *,
        logit_scale: float = 1.0,
    ) -> None:
        self.info = info
        self.network = network
        self.normalizer = normalizer
        self.logit_scale = logit_scale
        self._interface = interface
        self.packing = packing_of(interface.observation_space)
        self.leaves = _own_leaves(interface.observation_space, self.packing)
        mapped = action_map(interface.action_space, unscale=network.unit_actions)
        keep = network.adds_start or not any(mapped.start)
        self._action_map = mapped if keep else replace(mapped, start=())
        self._device = network.device
        self._normalise = by_leaf(normalizer, self.leaves, info, self._device)
        self._generator = torch.Generator(self._device)
        self._generator.manual_seed(0)

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
    def masked(self) -> bool:
        """Whether it was trained with action masks and needs them to act."""
        return self.info.algo in MASKABLE_ALGOS

    @property
    def recurrent(self) -> bool:
        """Whether it has a memory, and must see whole episodes step by step."""
        return False

    @property
    def fingerprint(self) -> str:
        """sha256 of the parameters and the normaliser, whatever file they came from and whatever the logit scale."""
        digest = self.network.fingerprint()
        if self.normalizer is not None:
            digest.add_text(repr(self.normalizer.to_json()))
        return digest.hexdigest()

    def distribution_params(self, observation: Tensor) -> Tensor:
        """Parameters [B, P], float32, for packed observations [B, *packing.shape] of any numeric dtype on `device`."""
        with torch.no_grad():
            params = self.network(self._leaves(self._fitting(observation)))
            return params if self.logit_scale == 1.0 else params * self.logit_scale

    @property
    def valued(self) -> bool:
        """Whether its source holds a critic that `value` can ask."""
        return isinstance(self.network, Network) and self.network.critic is not None

    def value(self, observation: Tensor) -> Tensor:
        """What the teacher expects of states: [B], float32, for packed raw observations [B, *packing.shape].

        V(s) of PPO, A2C, TRPO and MaskablePPO; max_a Q(s, a) of DQN and QR-DQN; Q(s, mu(s)) of SAC, TD3, DDPG and
        CrossQ (the least of its critics) and of TQC (the mean of all quantiles). Discounted, and in the units of the
        rewards that the teacher was trained on: where VecNormalize scaled those, so are these. InputError unless
        `valued`.
        """
        if not self.valued:
            raise InputError(
                f"{self.info.source}: holds no critic whose values could be read ({self.info.algo}): use a method that "
                "needs no values, or the stable-baselines3 zip of a teacher with a critic (any but ARS) and no memory"
            )
        assert isinstance(self.network, Network)
        with torch.no_grad():
            return self.network.value(self._leaves(self._fitting(observation)))

    def features(self, observation: Tensor) -> list[Tensor]:
        """The activations of the policy's hidden dense layers, [B, H_k] each, first layer first, for packed raw
        observations [B, *packing.shape]. InputError for a teacher whose layers cannot be seen (ONNX, a module or
        function, a policy class of the user's own, a memory)."""
        with torch.no_grad():
            return self._opened("hidden layers", "hints").hidden(self._leaves(self._fitting(observation)))

    def maps(self, observation: Tensor) -> dict[Path, list[Tensor]]:
        """Of each image, by its place in the observation, the activations behind its convolutions, [B, C, H, W] each,
        first one first, for packed raw observations [B, *packing.shape]. InputError as `features`."""
        with torch.no_grad():
            found = self._opened("convolutions", "attention").extractor.maps(self._leaves(self._fitting(observation)))
        return {leaf.path: maps for leaf, maps in zip(self.leaves, found, strict=True) if maps}

    def _opened(self, what: str, method: str) -> Network:
        if not isinstance(self.network, Network) or self.recurrent:
            raise InputError(
                f"{self.info.source}: its {what} cannot be seen: use a teacher without a memory from its "
                f"stable-baselines3 zip, or leave {method} out"
            )
        return self.network

    def _fitting(self, observation: Tensor) -> Tensor:
        """The observations, if they have the shape of the packing."""
        if tuple(observation.shape[1:]) != self.packing.shape:
            expected = self.packing.shape
            raise InputError(f"observations have shape {tuple(observation.shape)}, expected (B, *{expected})")
        return observation

    def _leaves(self, observation: Tensor) -> list[Tensor]:
        return [self._leaf(observation, index) for index in range(len(self.leaves))]

    def _leaf(self, observation: Tensor, index: int) -> Tensor:
        """One leaf [B, *shape] of packed observations as the network takes it."""
        values: Tensor = self.packing.leaf_of(observation, self.leaves[index])
        if index in self._normalise:
            values = self._normalise[index](values)
        return values.permute(0, 3, 1, 2) if index in self._interface.channels_last else values

    def fitted(self, space: Space[Any]) -> Teacher:
        """The teacher for an environment that gives its images as (height, width, channels), where it does, or that is
        seen in two ways: of `Views` it sees the teacher's.

        stable-baselines3 wraps environments of images (VecTransposeImage), so its files know only the turned images.
        """
        from policykd.spine.views import STUDENT, TEACHER, Views
        from policykd.teachers.images import turned_images

        if isinstance(space, Views) and not isinstance(self.observation_space, Views):
            own = self.fitted(space.spaces[TEACHER])
            views = Views(own.observation_space, space.spaces[STUDENT])
            return type(self)(
                self.network,
                replace(own._interface, observation_space=views),
                self.info,
                self.normalizer,
                logit_scale=self.logit_scale,
            )
        turned = turned_images(self.observation_space, space)
        if turned is None:
            return self
        interface = Interface(turned.space, self.action_space, turned.channels_last)
        return type(self)(self.network, interface, self.info, self.normalizer, logit_scale=self.logit_scale)

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions for one observation or a batch; `state` is handed back as it came.

        `action_masks`, [n] or [B, n] in MaskablePPO's layout, forbids actions; without it all are allowed.
        """
        mode = deterministic or self.network.kind != "policy"
        actions = acting.predict(self, observation, mode, self._generator, action_masks)
        return actions, state

    def seed(self, seed: int) -> None:
        """Restart the random numbers of stochastic actions."""
        self._generator.manual_seed(seed)

    def to(self, device: str | torch.device) -> Teacher:
        """The same teacher on another device, with random numbers that start anew."""
        network = self.network.to(torch.device(device))
        return type(self)(network, self._interface, self.info, self.normalizer, logit_scale=self.logit_scale)

    def with_logit_scale(self, scale: float) -> Teacher:
        """A teacher whose logits are `scale` (1 / temperature) times the values; InputError unless `value_teacher`."""
        if not self.value_teacher:
            raise InputError(f"{self.info.source}: has a distribution of its own; logit_scale is for Q-value teachers")
        if not 0 < scale < float("inf"):
            raise InputError(f"logit_scale is {scale}, expected a positive number")
        return type(self)(self.network, self._interface, self.info, self.normalizer, logit_scale=scale)

    def with_info(self, **changes: Any) -> Teacher:
        """The same teacher with some fields of its `info` replaced."""
        info = replace(self.info, **changes)
        return type(self)(self.network, self._interface, info, self.normalizer, logit_scale=self.logit_scale)


def _own_leaves(space: Space[Any], packing: Packing) -> tuple[Leaf, ...]:
    """The leaves of the packed observations that a teacher looks at: all, or of two views its own."""
    from policykd.spine.views import TEACHER, Views, leaves_of

    return leaves_of(TEACHER, packing.leaves) if isinstance(space, Views) else packing.leaves
