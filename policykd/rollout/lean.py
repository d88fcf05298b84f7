"""Who acts and how, where teacher and students are plain MLPs on a CPU: all in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policykd.rollout.draws import Sampler, mode, perturbed
from policykd.rollout.inputs import full
from policykd.rollout.kernels import Kernel, Members, kernel_of, with_log_std
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array, TeacherPolicy

if TYPE_CHECKING:
    from policykd.rollout.collect import Shard

_TEACHER = -1
_Map = Callable[[Array], Array]
# Observations that are labelled at once: what lies between two layers stays in the cache, and the product of a narrow
# last layer is NumPy's, which takes a tenth of torch's time for it.
_ROWS = 128


class Driver(Protocol):
    """Chooses actions; `remembers`: it must be told where episodes begin."""

    remembers: bool

    def decide(
        self,
        observation: Array,
        mask: NDArray[np.bool_] | None = None,
        start: NDArray[np.bool_] | None = None,
        truth: Array | None = None,
    ) -> tuple[Array, NDArray[np.int32]]:
        """Environment actions [N, ...] for observations [N, *O], and who chose them [N]: -1 the teacher, else the
        slot. The teacher goes by `truth` [N, *O], where it is given."""
        ...

    def labels(self, observations: Array) -> NDArray[np.float32] | None:
        """The teacher's parameters [T, N, P] for all (true) observations [T, N, *O], where it makes them."""
        ...


def lean_driver(shard: Shard, teacher: TeacherPolicy, students: Any) -> Driver | None:
    """The driver in NumPy, where `rollout.kernel` asks for it and everybody who acts can be done."""
    if shard.acting.kernel != "numpy" or not (students is None or isinstance(students, Members)):
        return None
    own = kernel_of(teacher)
    theirs = None if students is None else students.kernel(shard.n_envs)
    if own is None or (students is not None and theirs is None):
        return None
    return _Lean(shard, teacher, own, theirs)


class _Lean:
    """As the driver in torch, with samples from NumPy's generators."""

    remembers = False

    def __init__(self, shard: Shard, teacher: TeacherPolicy, own: Kernel, theirs: Kernel | None) -> None:
        self._shard, self._teacher, self._own = shard, teacher, own
        key = SeedKey(shard.key.root, "act", shard.key.round, shard.key.shard)
        self._rng, config = key.numpy(), shard.acting
        self._slots = np.arange(shard.n_envs, dtype=np.int32)
        self._nobody = np.full(shard.n_envs, _TEACHER, np.int32)
        noisy = teacher.deterministic_teacher or teacher.value_teacher
        self._noise = config.noise if noisy and config.teacher_stochastic else 0.0
        self._to_env = _to_env(teacher, shard.n_envs)
        self._choose = self._chooser(own, key.numpy(1), config.teacher_stochastic and not noisy)
        self._means: list[NDArray[np.float32]] = []
        self._students: _Map | None = None
        if theirs is not None and shard.beta < 1:
            self._students = self._acting(theirs, key.numpy(2), config.student_stochastic is True)
        self._alone = self._students if shard.beta <= 0 else None

    def decide(
        self,
        observation: Array,
        mask: NDArray[np.bool_] | None = None,
        start: NDArray[np.bool_] | None = None,
        truth: Array | None = None,
    ) -> tuple[Array, NDArray[np.int32]]:
        if self._alone is not None:
            return self._alone(observation), self._slots
        means = self._own.means(observation if truth is None else truth)
        self._means.append(means.copy())
        actions = self._to_env(self._choose(means))
        if self._noise:
            actions = perturbed(actions, self._teacher, self._noise, self._rng)
        if self._students is None:
            return actions, self._nobody
        teacher_acts = self._rng.random(len(self._slots)) < self._shard.beta
        mixed = self._students(observation)
        mixed[teacher_acts] = actions[teacher_acts]
        return mixed, np.where(teacher_acts, self._nobody, self._slots)

    def labels(self, observations: Array) -> NDArray[np.float32] | None:
        means = self._means
        if self._alone is not None:
            flat = observations.reshape(-1, observations.shape[-1])
            means = [self._own.means(flat[begin : begin + _ROWS]).copy() for begin in range(0, len(flat), _ROWS)]
        params = with_log_std(np.concatenate(means), self._own.log_std)
        return params.reshape(*observations.shape[:2], -1)

    def _chooser(self, kernel: Kernel, rng: np.random.Generator, stochastic: bool) -> Sampler | _Map:
        distribution = self._teacher.distribution
        if stochastic:
            return Sampler(distribution, len(self._slots), rng, kernel.log_std)
        return partial(mode, distribution)

    def _acting(self, kernel: Kernel, rng: np.random.Generator, stochastic: bool) -> _Map:
        """From observations [N, *O] to environment actions [N, ...]."""
        means, choose, to_env = kernel.means, self._chooser(kernel, rng, stochastic), self._to_env
        if not (isinstance(choose, Sampler) and choose.gaussian and isinstance(to_env, _Clip)):
            return lambda seen: to_env(choose(means(seen)))
        noise, low, high = choose.noise, to_env.low, to_env.high

        def sampled(seen: Array) -> Array:  # the same for the commonest, without calls in between
            actions = noise()
            np.add(actions, means(seen), actions)
            np.maximum(actions, low, out=actions)
            np.minimum(actions, high, out=actions)
            return actions

        return sampled


@dataclass(frozen=True)
class _Clip:
    """The commonest action map with its bounds written out for N actions [N, A], at a third of the time."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def __call__(self, actions: Array) -> Array:
        inside = np.maximum(actions, self.low)  # a new array: an environment may keep its action
        np.minimum(inside, self.high, out=inside)
        return inside


def _to_env(teacher: TeacherPolicy, n: int) -> _Map:
    """The teacher's action map for N actions."""
    action_map = teacher.action_map
    if action_map.kind != "clip" or action_map.dtype != "float32" or len(action_map.shape) != 1:
        return action_map
    return _Clip(*(full(np.asarray(bound, np.float32), n) for bound in (action_map.low, action_map.high)))
