"""Several teachers of one environment as one: it has their distributions, brought to one layout, and combines them.

What differs between algorithms is settled here. Actions in [-1, 1] (SAC, TD3) and in the environment's units (PPO) are
one affine map apart, which is exact for Gaussians. Squashed Gaussians (SAC) among themselves are combined before the
tanh; beside plain ones they become plain over the same actions (`policykd.loss.combining.unsquashed`). A deterministic
teacher (TD3, DDPG, ARS) has the Gaussian of fixed spread that it has alone. Q-values are divided by a temperature each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from policykd.loss.combining import affine, chosen, mixture, product, unsquashed
from policykd.loss.distributions import DiagGaussian, Distribution, SquashedDiagGaussian
from policykd.spine.config.ensemble import How
from policykd.spine.errors import InputError
from policykd.spine.spaces import describe_space, same_shape
from policykd.spine.types import Footprint, TeacherInfo
from policykd.teachers.base import Interface, Kind, Teacher
from policykd.teachers.networks import Fingerprint

if TYPE_CHECKING:
    from gymnasium import Space

_NOTHING = 1e-12  # by which weights that were divided by their sum may miss 1

Convert = Callable[[Tensor], Tensor]
"""From one teacher's parameters [B, Q] to the ensemble's layout [B, P]."""


@dataclass(frozen=True)
class Panel:
    """The teachers, how they are combined, and their weights, which sum to 1. `distribution` and `unit_actions` are
    those of the combination, and `converts` brings each one's parameters there."""

    teachers: tuple[Teacher, ...]
    how: How
    weights: tuple[float, ...]
    distribution: Distribution
    unit_actions: bool
    converts: tuple[Convert, ...]

    @property
    def kind(self) -> Kind:
        """What all of them are; policy where one has a distribution of its own."""
        kinds: set[Kind] = {teacher.network.kind for teacher in self.teachers}
        return kinds.pop() if len(kinds) == 1 else "policy"

    @property
    def adds_start(self) -> bool:
        """Whether their first action is the `start` of the space; `ensemble_of` has seen that they agree."""
        return self.teachers[0].network.adds_start

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.teachers[0].device

    def params(self, observation: Tensor) -> Tensor:
        """Parameters [B, P] for packed raw observations [B, *packing.shape]."""
        pairs = zip(self.converts, self.teachers, strict=True)
        each = torch.stack([convert(teacher.distribution_params(observation)) for convert, teacher in pairs])
        if self.how == "value":
            return chosen(each, self.values(observation))
        weights = torch.tensor(self.weights, device=each.device)
        return (mixture if self.how == "mixture" else product)(self.distribution, each, weights)

    def values(self, observation: Tensor) -> Tensor:
        """What each teacher expects of states, [K, B]."""
        return torch.stack([teacher.value(observation) for teacher in self.teachers])

    def __call__(self, leaves: Sequence[Tensor]) -> NoReturn:
        raise InputError("an ensemble takes whole observations: each of its teachers normalises them in its own way")

    def to(self, device: torch.device) -> Panel:
        """The same with all teachers on `device`."""
        return replace(self, teachers=tuple(teacher.to(device) for teacher in self.teachers))

    def fingerprint(self) -> Fingerprint:
        """Over every teacher's, how they are combined, and the weights."""
        digest = Fingerprint().add_text(f"{self.how} {self.weights}")
        for teacher in self.teachers:
            digest.add_text(f"{teacher.fingerprint} {teacher.logit_scale}")
        return digest


class EnsembleTeacher(Teacher):
    """Several teachers that label and act as one; each sees raw observations, and normalises them for itself."""

    network: Panel

    @property
    def masked(self) -> bool:
        """Whether one of them needs action masks. They hold for the combination: who likes what is forbidden says less
        of the rest."""
        return any(teacher.masked for teacher in self.network.teachers)

    def distribution_params(self, observation: Tensor) -> Tensor:
        """Parameters [B, P], float32, for packed observations [B, *packing.shape] of any numeric dtype on `device`."""
        with torch.no_grad():
            return self.network.params(self._fitting(observation))

    @property
    def valued(self) -> bool:
        """Whether all have a critic that `value` can ask."""
        return all(teacher.valued for teacher in self.network.teachers)

    def value(self, observation: Tensor) -> Tensor:
        """What they expect of states, [B]: where the highest value speaks that one, else their weighted mean."""
        values = self.network.values(self._fitting(observation))
        if self.network.how == "value":
            return values.amax(0)
        return torch.tensor(self.network.weights, device=values.device) @ values

    def fitted(self, space: Space[Any]) -> EnsembleTeacher:
        """Every teacher fitted to an environment of these observations, as `Teacher.fitted`."""
        teachers = tuple(teacher.fitted(space) for teacher in self.network.teachers)
        interface = Interface(teachers[0].observation_space, self.action_space)
        return EnsembleTeacher(replace(self.network, teachers=teachers), interface, self.info)

    def with_logit_scale(self, scale: float) -> NoReturn:
        """Each teacher of Q-values has a scale of its own: InputError."""
        raise InputError(f"{self.info.source}: its teachers have a scale each: use `weighed`")

    def weighed(self, weights: Sequence[float], logit_scales: Sequence[float]) -> EnsembleTeacher:
        """The same with these weights, of which only the ratios count, and scales of the teachers' Q-values; the scale
        of a teacher without is not looked at."""
        pairs = zip(self.network.teachers, logit_scales, strict=True)
        teachers = tuple(t.with_logit_scale(scale) if t.value_teacher else t for t, scale in pairs)
        panel = replace(self.network, teachers=teachers, weights=_shares(weights))
        return EnsembleTeacher(panel, self._interface, self.info)


def teachers_of(teacher: Teacher) -> tuple[Teacher, ...]:
    """The teachers of an ensemble, or the one that teaches alone."""
    return teacher.network.teachers if isinstance(teacher, EnsembleTeacher) else (teacher,)


def ensemble_of(teachers: Sequence[Teacher], how: How, weights: Sequence[float]) -> EnsembleTeacher:
    """The teachers as one; `weights` one for each, of which only the ratios count.

    InputError naming the teacher that has another environment, a memory, or actions that have no common layout.
    """
    first = teachers[0]
    for other in teachers:
        _refuse_alien(first, other)
        if how == "value" and not other.valued:
            raise InputError(
                f"{other.info.source}: ensemble.how value asks the teacher's critic, and it holds none "
                f"({other.info.algo}): use ensemble.how=mixture or product"
            )
    distribution, unit, converts = _common(teachers)
    panel = Panel(tuple(teachers), how, _shares(weights), distribution, unit, converts)
    return EnsembleTeacher(panel, Interface(first.observation_space, first.action_space), _info(teachers))


def _shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to 1; those that do already keep their last bits, so that settled ones stay as they are."""
    total = sum(weights)
    return tuple(weights) if abs(total - 1.0) < _NOTHING else tuple(weight / total for weight in weights)


def _refuse_alien(first: Teacher, other: Teacher) -> None:
    """InputError where the two cannot act in one environment, or one of them has a memory."""
    names = f"teachers {first.info.source} and {other.info.source}"
    if other.recurrent:
        raise InputError(f"{other.info.source}: has a memory (LSTM), which an ensemble cannot ask: leave it out")
    if first.info.env_id != other.info.env_id:
        raise InputError(
            f"{names}: trained in {first.info.env_id} and {other.info.env_id}, expected one environment: name it with "
            "--env if it is one"
        )
    if first.info.wrappers != other.info.wrappers:
        raise InputError(
            f"{names}: trained behind different wrappers, expected the same: choose teachers that share them"
        )
    for what in ("observation", "action"):
        spaces = [getattr(teacher, f"{what}_space") for teacher in (first, other)]
        if not same_shape(*spaces):
            found = " and ".join(map(describe_space, spaces))
            raise InputError(f"{names}: {what} spaces are {found}, expected equal ones: choose others")
    if first.packing != other.packing:
        raise InputError(f"{names}: take the entries of their observations in different orders: choose others")
    if first.action_map.start != other.action_map.start:
        raise InputError(f"{names}: count their actions from different numbers: choose others")


def _common(teachers: Sequence[Teacher]) -> tuple[Distribution, bool, tuple[Convert, ...]]:
    """The layout of the combination, whether its actions lie in [-1, 1], and each one's way there."""
    first = teachers[0]
    layouts = {(teacher.distribution, teacher.network.unit_actions) for teacher in teachers}
    if len(layouts) == 1:
        return first.distribution, first.network.unit_actions, tuple(_as_it_is for _ in teachers)
    for teacher in teachers:
        if not isinstance(teacher.distribution, DiagGaussian | SquashedDiagGaussian):
            raise InputError(
                f"teachers {first.info.source} and {teacher.info.source}: their distributions are {first.distribution} "
                f"and {teacher.distribution}, which have no common layout: choose others"
            )
    assert isinstance(first.distribution, DiagGaussian | SquashedDiagGaussian)
    return DiagGaussian(first.distribution.dim), True, tuple(map(_to_unit, teachers))


def _to_unit(teacher: Teacher) -> Convert:
    """From a teacher's Gaussian to a plain one over actions in [-1, 1]."""
    if isinstance(teacher.distribution, SquashedDiagGaussian):
        return unsquashed
    if teacher.network.unit_actions:
        return _as_it_is
    low, high = (np.asarray(bound, np.float64) for bound in (teacher.action_map.low, teacher.action_map.high))
    if not np.isfinite([low, high]).all():
        raise InputError(
            f"{teacher.info.source}: its actions have no bounds, but another teacher acts in [-1, 1]: choose others"
        )
    centre, half = (torch.tensor(x, dtype=torch.float32) for x in ((low + high) / 2, (high - low) / 2))
    return lambda params: affine(params, centre.to(params.device), half.to(params.device))


def _as_it_is(params: Tensor) -> Tensor:
    return params


def _info(teachers: Sequence[Teacher]) -> TeacherInfo:
    """What is known of all: sizes add up, names are joined, layers are those of the widest."""
    infos = [teacher.info for teacher in teachers]
    digest = Fingerprint()
    for info in infos:
        digest.add_text(info.sha256)
    costs = [info.footprint for info in infos]
    params, macs = sum(cost.params for cost in costs), sum(cost.macs for cost in costs)
    known = all(cost.params for cost in costs)  # nothing is known of a function's size
    widest = max(infos, key=lambda info: max((outputs for _, outputs in info.layers[:-1]), default=0))
    return replace(
        infos[0],
        source=" + ".join(info.source for info in infos),
        sha256=digest.hexdigest(),
        algo="+".join(info.algo for info in infos),
        layers=widest.layers,
        activation=widest.activation,
        normalised=any(info.normalised for info in infos),
        gsde=any(info.gsde for info in infos),
        footprint=Footprint(params if known else 0, sum(cost.constants for cost in costs), macs if known else 0),
        notes=tuple(dict.fromkeys(note for info in infos for note in info.notes)),
    )
