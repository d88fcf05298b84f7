"""A teacher that is no network of ours: something computes outputs, and the user states what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from policykd.loss.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    SquashedDiagGaussian,
)
from policykd.spine.errors import InputError, NumericsError, brief
from policykd.spine.spaces import describe_space
from policykd.teachers.base import Kind
from policykd.teachers.build import fixed_log_std
from policykd.teachers.networks import Fingerprint

if TYPE_CHECKING:
    from gymnasium import Space

DISTRIBUTIONS = ("categorical", "multi_categorical", "bernoulli", "gaussian", "squashed_gaussian")
"""What a distribution is called in text; `distribution_for` says which spaces they are for."""


def distribution_for(space: Space[Any], named: str | None, name: str) -> Distribution:
    """The distribution of that name over the action space, or without a name the usual one (gaussian for a Box).

    categorical: Discrete. multi_categorical: MultiDiscrete. bernoulli: MultiBinary. gaussian, squashed_gaussian: Box.
    InputError where the two do not fit.
    """
    from gymnasium import spaces

    usual: dict[str, Distribution]
    if isinstance(space, spaces.Discrete):
        usual = {"categorical": Categorical(int(space.n))}
    elif isinstance(space, spaces.MultiDiscrete):
        usual = {"multi_categorical": MultiCategorical(tuple(int(n) for n in space.nvec.ravel()))}
    elif isinstance(space, spaces.MultiBinary):
        usual = {"bernoulli": Bernoulli(int(np.prod(space.shape)))}
    elif isinstance(space, spaces.Box):
        dim = int(np.prod(space.shape))
        usual = {"gaussian": DiagGaussian(dim), "squashed_gaussian": SquashedDiagGaussian(dim)}
    else:
        kind = type(space).__name__
        raise InputError(
            f"{name}: action_space is a {kind}, expected a Discrete, MultiDiscrete, MultiBinary or Box of gymnasium"
        )
    if named is None:
        return next(iter(usual.values()))
    if named not in usual:
        raise InputError(
            f"{name}: distribution {named!r} does not fit actions {describe_space(space)}: expected "
            f"{' or '.join(usual)}; correct the one or the other"
        )
    return usual[named]


@dataclass(frozen=True)
class Meaning:
    """What outputs [B, M] mean. `log_std` [A]: the fixed spread of a deterministic teacher, whose outputs are actions;
    None where the outputs are the parameters themselves."""

    distribution: Distribution
    kind: Kind
    unit_actions: bool
    log_std: Tensor | None = None

    @property
    def n_outputs(self) -> int:
        """M: the distribution's parameters, or the actions of a deterministic teacher."""
        return self.distribution.n_params if self.log_std is None else self.distribution.n_means

    def params(self, outputs: Tensor) -> Tensor:
        """Distribution parameters [B, P] for outputs [B, M]."""
        if self.log_std is None:
            return outputs
        return torch.cat([outputs, self.log_std.to(outputs.device).expand_as(outputs)], -1)


def meaning_of(
    space: Space[Any], distribution: Distribution | str | None, kind: Kind, unscale: bool | None, name: str
) -> Meaning:
    """What the outputs of the teacher `name` mean; InputError where action space, distribution and kind do not fit.

    `unscale`: actions lie in [-1, 1] and are stretched to the space's bounds; None means: if squashed.
    """
    known = ("policy", "value", "deterministic")
    if kind not in known:
        raise InputError(f"{name}: kind is {kind!r}, expected one of {', '.join(known)}")
    if distribution is None or isinstance(distribution, str):
        stated = distribution_for(space, distribution, name)
    else:
        stated = _fitting(space, distribution, name)
    if kind == "value" and not isinstance(stated, Categorical):
        raise InputError(f"{name}: values are for Discrete actions, found {describe_space(space)}: state another kind")
    if kind == "deterministic" and not isinstance(stated, DiagGaussian):
        found = f"{describe_space(space)}, {type(stated).__name__}"
        raise InputError(f"{name}: a deterministic teacher needs Box actions and a gaussian, found {found}")
    squashed = isinstance(stated, SquashedDiagGaussian)
    if squashed and unscale is False:
        raise InputError(f"{name}: a squashed gaussian acts in [-1, 1], so its actions are unscaled: leave unscale out")
    if unscale and not isinstance(stated, DiagGaussian | SquashedDiagGaussian):
        raise InputError(f"{name}: unscale is for Box actions, found {describe_space(space)}: leave it out")
    unit = squashed or bool(unscale)
    return Meaning(stated, kind, unit, fixed_log_std(space, unit=unit) if kind == "deterministic" else None)


def _fitting(space: Space[Any], stated: Distribution, name: str) -> Distribution:
    if not hasattr(stated, "n_params"):
        raise InputError(
            f"{name}: distribution is a {type(stated).__name__}, expected one of policykd.loss.distributions, or one "
            f"of the names {', '.join(DISTRIBUTIONS)}"
        )
    named = "squashed_gaussian" if isinstance(stated, SquashedDiagGaussian) else None
    expected = distribution_for(space, named, name)
    if stated != expected:
        raise InputError(
            f"{name}: distribution is {brief(stated)}, but actions {describe_space(space)} need {brief(expected)}"
        )
    return stated


class Compute(Protocol):
    """From observations to outputs; it records no gradient."""

    @property
    def device(self) -> torch.device: ...

    def __call__(self, observation: Tensor) -> Any:
        """Outputs [B, M] for float32 observations [B, *shape] on `device`."""
        ...

    def to(self, device: torch.device) -> Compute:
        """The same on another device."""
        ...


@dataclass(frozen=True)
class Stated:
    """The `Forward` of such a teacher. `identity` is the part of its fingerprint that tells it from others."""

    compute: Compute
    meaning: Meaning
    name: str
    identity: str

    @property
    def distribution(self) -> Distribution:
        """The layout of the parameters."""
        return self.meaning.distribution

    @property
    def kind(self) -> Kind:
        """policy, value or deterministic."""
        return self.meaning.kind

    @property
    def unit_actions(self) -> bool:
        """Whether actions lie in [-1, 1] and are unscaled to the space."""
        return self.meaning.unit_actions

    @property
    def device(self) -> torch.device:
        """Where observations are expected."""
        return self.compute.device

    @property
    def adds_start(self) -> bool:
        """Its actions count from the `start` of the space."""
        return True

    def __call__(self, leaves: Sequence[Tensor]) -> Tensor:
        """Parameters [B, P], float32, for the one leaf [B, *shape].

        InputError for outputs of another shape, NumericsError for a NaN or infinity.
        """
        (observation,) = leaves
        outputs = self.compute(observation.float())
        shape = (len(observation), self.meaning.n_outputs)
        if not isinstance(outputs, Tensor) or tuple(outputs.shape) != shape:
            found = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            what = "actions" if self.meaning.log_std is not None else "parameters"
            raise InputError(
                f"{self.name}: gave {found} for {shape[0]} observations, expected a tensor of shape {shape}: the "
                f"{what} of {self.distribution}"
            )
        if not torch.isfinite(outputs).all():
            raise NumericsError(f"{self.name}: gave a NaN or infinity for finite observations; mend the teacher")
        return self.meaning.params(outputs.detach().float())

    def to(self, device: torch.device) -> Stated:
        """The same with its computation on `device`."""
        return replace(self, compute=self.compute.to(device))

    def fingerprint(self) -> Fingerprint:
        """Over the identity and the meaning."""
        digest = Fingerprint().add_text(self.identity).add_text(repr(self.distribution.to_json()))
        return digest.add_text(f"{self.kind} {self.unit_actions}")
