"""What a student sees of an environment's observations: everything, or some entries of a Dict, where a privileged
teacher sees more, or its own view of an environment that is seen in two ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.packing import Packing, Path, packing_of
from policykd.spine.spaces import describe_space, same_shape
from policykd.spine.types import Array, State, is_recurrent

if TYPE_CHECKING:
    from gymnasium import Space

    from policykd.students.student import Student


@dataclass(frozen=True)
class View:
    """The student's own `space` and its `packing`; `columns`: what it sees of the environment's packed observations,
    None for everything."""

    space: Space[Any]
    packing: Packing
    columns: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, keys: Sequence[str] | None, space: Space[Any], packing: Packing) -> View:
        """Of the entries `keys` of a Dict `space`, whose observations are packed by `packing`; all without `keys`. Of
        `Views` it is the student's. InputError for keys that it does not have."""
        from gymnasium import spaces

        from policykd.spine.views import STUDENT, Views

        if isinstance(space, Views):
            shown = space.spaces[STUDENT]
            view = cls.of(keys, shown, packing_of(shown))
            return cls(view.space, view.packing, _columns(view.packing, packing, (STUDENT,)))
        if keys is None:
            return cls(space, packing)
        if not isinstance(space, spaces.Dict):
            raise InputError(
                f"student.keys: observations are {describe_space(space)}, expected a Dict: leave student.keys out"
            )
        unknown = sorted(set(keys) - set(space.spaces))
        if unknown or not keys:
            known = ", ".join(space.spaces)
            raise InputError(f"student.keys: found {', '.join(unknown) or 'none'}, expected some of {known}")
        own = spaces.Dict({key: inner for key, inner in space.spaces.items() if key in keys})
        return cls(own, packing_of(own), _columns(packing_of(own), packing))

    def packed(self, observation: Array) -> Array:
        """The student's packed observations [..., *shape] of the environment's."""
        if self.columns is None:
            return observation
        lead = observation.shape[:-1]
        return observation[..., self.columns].reshape(*lead, *self.packing.shape).astype(self.packing.dtype, copy=False)

    def features(self, observation: Array) -> NDArray[np.float32]:
        """The student's inputs [B, F] of the environment's packed observations [B, *shape]."""
        return self.packing.features(self.packed(observation))

    def tensor_features(self, observation: Tensor) -> Tensor:
        """`features` on a tensor, on its device."""
        if self.columns is not None:
            observation = _picked(observation, torch.from_numpy(self.columns).to(observation.device), self.packing)
        return self.packing.tensor_features(observation)


def _columns(own: Packing, whole: Packing, under: Path = ()) -> NDArray[np.int64]:
    """Where the numbers of `own` lie in `whole`, in which its leaves stand below the path `under`."""
    begins = {leaf.path: leaf.begin for leaf in whole.leaves}
    first = [begins[(*under, *leaf.path)] for leaf in own.leaves]
    return np.concatenate([np.arange(a, a + leaf.size) for a, leaf in zip(first, own.leaves, strict=True)])


def _picked(observation: Tensor, places: Tensor, own: Packing) -> Tensor:
    """The packed observations [B, *own.shape] that lie at `places` of larger ones [B, n]."""
    return observation[:, places].reshape(len(observation), *own.shape).to(getattr(torch, own.dtype))


class Partial:
    """A student in an environment that shows more than it sees: a `policykd.spine.types.Policy` of that environment."""

    def __init__(self, student: Student, space: Space[Any], packing: Packing) -> None:
        from policykd.spine.views import STUDENT, Views

        self.student, self.observation_space, self.packing = student, space, packing
        self._under: Path = (STUDENT,) if isinstance(space, Views) else ()
        self.columns = _columns(student.packing, packing, self._under)
        self._places = torch.from_numpy(self.columns).to(student.device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process as the student is."""
        return Partial, (self.student, self.observation_space, self.packing)

    @property
    def action_space(self) -> Space[Any]:
        """The environment's."""
        return self.student.action_space

    @property
    def distribution(self) -> Distribution:
        """The student's."""
        return self.student.distribution

    @property
    def action_map(self) -> ActionMap:
        """The student's."""
        return self.student.action_map

    @property
    def device(self) -> torch.device:
        """The student's."""
        return self.student.device

    @property
    def masked(self) -> bool:
        """Whether it needs action masks to act."""
        return self.student.masked

    @property
    def recurrent(self) -> bool:
        """Whether it has a memory."""
        return self.student.recurrent

    def distribution_params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [B, P] for the environment's packed observations [B, *packing.shape]."""
        return self.student.distribution_params(_picked(observation, self._places, self.student.packing))

    def initial_state(self, n: int) -> State:
        """The state of n episodes that have not begun."""
        assert is_recurrent(self.student)
        return self.student.initial_state(n)

    def step(self, observation: Tensor, state: State, episode_start: Tensor) -> tuple[Tensor, State]:
        """As the student's, for the environment's packed observations."""
        assert is_recurrent(self.student)
        return self.student.step(_picked(observation, self._places, self.student.packing), state, episode_start)

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """As the student's, for whole observations of the environment."""
        for entry in self._under:
            observation = observation[entry]
        return self.student.predict(observation, state, episode_start, deterministic, action_masks)


def seeing(student: Student, space: Space[Any], packing: Packing | None = None) -> Student | Partial:
    """The student as it acts in an environment with these observations, packed by `packing` (by default in their own
    order): itself, unless it sees only some entries of a Dict, or its own view of two."""
    from policykd.spine.views import STUDENT, Views

    own = student.observation_space
    if isinstance(space, Views):
        shown = space.spaces[STUDENT]
        partial = same_shape(own, shown) or _is_part(own, shown)
    else:
        partial = _is_part(own, space)
    return Partial(student, space, packing or packing_of(space)) if partial else student


def _is_part(own: Space[Any], whole: Space[Any]) -> bool:
    from gymnasium import spaces

    return isinstance(own, spaces.Dict) and isinstance(whole, spaces.Dict) and own.spaces.keys() < whole.spaces.keys()
