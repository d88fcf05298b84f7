"""Who acts and how, where teacher and students are plain MLPs on a CPU: all in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policykd.rollout.draws import Sampler, mode, perturbed
from policykd.rollout.kernels import Kernel, Members, full, kernel_of, with_log_std
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array, TeacherPolicy

if TYPE_CHECKING:
    from policykd.rollout.collect import Shard

_TEACHER = -1
_ROWS = 256  # of observations that are labelled at once: what lies between two layers stays in the cache


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
        self._students: Callable[[Array], Array] | None = None
        if theirs is not None and shard.beta < 1:
            choose, to_env = self._chooser(theirs, key.numpy(2), config.student_stochastic is True), self._to_env
            self._students = lambda seen: to_env(choose(theirs.means(seen)))
        self._alone = self._students is not None and shard.beta <= 0

    def decide(
        self,
        observation: Array,
        mask: NDArray[np.bool_] | None = None,
        start: NDArray[np.bool_] | None = None,
        truth: Array | None = None,
    ) -> tuple[Array, NDArray[np.int32]]:
        if self._alone and self._students is not None:
            return self._students(observation), self._slots
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
        if self._alone:
            flat = observations.reshape(-1, observations.shape[-1])
            means = [self._own.means(flat[begin : begin + _ROWS]).copy() for begin in range(0, len(flat), _ROWS)]
        params = with_log_std(np.concatenate(means), self._own.log_std)
        return params.reshape(*observations.shape[:2], -1)

    def _chooser(self, kernel: Kernel, rng: np.random.Generator, stochastic: bool) -> Callable[[Array], Array]:
        distribution = self._teacher.distribution
        if stochastic:
            return Sampler(distribution, len(self._slots), rng, kernel.log_std)
        return lambda means: mode(distribution, means)


def _to_env(teacher: TeacherPolicy, n: int) -> Callable[[Array], Array]:
    """The teacher's action map for N actions; the commonest one with its bounds written out, at a third of the time."""
    action_map = teacher.action_map
    if action_map.kind != "clip" or action_map.dtype != "float32" or len(action_map.shape) != 1:
        return action_map
    low, high = (full(np.asarray(bound, np.float32), n) for bound in (action_map.low, action_map.high))

    def clipped(actions: Array) -> Array:
        inside = np.maximum(actions, low)  # a new array: an environment may keep its action
        np.minimum(inside, high, out=inside)
        return inside

    return clipped
