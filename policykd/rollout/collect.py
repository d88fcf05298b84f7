"""One shard of a rollout: a pure function of (weights, environment, seed, steps).

Fresh environments start at a reset and are stepped `n_steps` times. The teacher labels every visited state once: in
the forward that supplies its action where it may act, else in one forward over the whole shard afterwards. A teacher
with a memory sees and labels every step as it comes, whoever acts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss.acting import act, params_on
from policykd.loss.masking import apply_mask, masked_params
from policykd.rollout.disturbed import DisturbedEnvs
from policykd.rollout.draws import perturbed
from policykd.rollout.envs import EnvSpec
from policykd.rollout.lean import Driver, lean_driver
from policykd.rollout.recurrent import GruMembers
from policykd.rollout.vecenv import BatchEnv, Bools, Ends, Floats, make_batch
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.errors import NumericsError
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array, Progress, TeacherPolicy, is_recurrent

TEACHER = -1
Students = Callable[[Tensor], Tensor]
_TELL = 0.1  # seconds between two words on progress, at least


@dataclass(frozen=True)
class Shard:
    """What to collect: `beta` is the probability that the teacher acts, drawn per step and environment; `whole`:
    actions, rewards and ends of every step are kept as well, for data that others read."""

    key: SeedKey
    n_envs: int
    n_steps: int
    beta: float
    acting: RolloutConfig
    whole: bool = False


@dataclass(frozen=True)
class Steps:
    """What was done and what came of it: action [T, N, *A] as the environment took it, reward and done [T, N]; of the K
    episodes that ended, in the order of their ends, terminated [K] and their last observations last [K, *O]."""

    action: Array
    reward: Floats
    done: Bools
    terminated: Bools
    last: Array


@dataclass(frozen=True)
class Rollout:
    """What was seen. T steps of N environments; rows with `acting` False belong to no decision.

    observation [T, N, *O] raw and packed, as a student sees it; params [T, N, P] the teacher's
    labels, None until `label` made them; acting, start [T, N]; actor [T, N]: a member's
    index or -1 for the teacher; returns, lengths: of the episodes that ended inside, with `slot` who drove them;
    mask [T, N, n]: the actions that were allowed, where the teacher needs masks. Labels are masked by it.
    truth [T, N, *O]: what the teacher labels, where observations are disturbed; else None. steps: of a whole shard.
    """

    observation: Array
    params: NDArray[np.float32] | None
    acting: Bools
    start: Bools
    actor: NDArray[np.int32]
    returns: Floats
    lengths: NDArray[np.int64]
    slot: NDArray[np.int64]
    mask: Bools | None = None
    truth: Array | None = None
    steps: Steps | None = None

    @property
    def timesteps(self) -> int:
        """Real environment steps."""
        return int(self.acting.sum())


def collect(
    shard: Shard, spec: EnvSpec, teacher: TeacherPolicy, students: Students | GruMembers | None, progress: Progress
) -> Rollout:
    """Collects one shard.

    `students` maps raw observations [N, *O] on the teacher's device to parameters [N, P], each slot by the member
    that drives it; it may be None when beta is 1. Members with a memory are new for every shard. Raises NumericsError
    for a NaN and Interrupted when asked to stop.
    """
    if students is None and shard.beta < 1:
        raise ValueError("a shard with beta < 1 needs students to act")
    counts = np.zeros(shard.n_envs, np.int64)

    def next_seed(slot: int) -> int:
        counts[slot] += 1
        return shard.key.episode_seed(slot, int(counts[slot]))

    env = make_batch(spec, shard.n_envs, next_seed)
    driver = lean_driver(shard, teacher, students) or _Driver(shard, teacher, students)
    try:
        return _run(shard, env, driver, progress)
    finally:
        env.close()


def _run(shard: Shard, env: BatchEnv, driver: Driver, progress: Progress) -> Rollout:
    """Only what must be done between two steps is done there: between them the caches are cold, and a batch small."""
    steps, n = shard.n_steps, shard.n_envs
    observation = env.reset([shard.key.episode_seed(i, 0) for i in range(n)])
    mask = None if env.mask is None else env.mask.copy()
    masks = None if mask is None else np.empty((steps, *mask.shape), np.bool_)
    seen = np.empty((steps, *observation.shape), observation.dtype)
    truths = np.empty_like(seen) if isinstance(env, DisturbedEnvs) else None
    rewards, ends, lives, actors = list[Floats](), list[Bools](), list[Bools](), list[NDArray[np.int32]]()
    live, start = np.ones(n, np.bool_), np.ones(n, np.bool_)
    told, again, kept = 0, time.monotonic() + _TELL, list[tuple[Array, Ends | None]]()
    for t in range(steps):
        progress.check()
        seen[t] = observation
        truth = None
        if truths is not None and isinstance(env, DisturbedEnvs):
            truth = truths[t] = env.truth
        lives.append(live)
        if masks is not None:
            masks[t] = mask
        if driver.remembers and t:
            start = (ends[-1] | ~lives[-2]) & live
        action, who = driver.decide(observation, mask, start, truth)
        step = env.step(action)
        if shard.whole:
            kept.append((action.copy(), step.ends))
        actors.append(who)
        rewards.append(step.reward)
        ends.append(step.done)
        observation, live, mask = step.observation, step.acting, step.mask
        if time.monotonic() >= again or t == steps - 1:
            progress.advance(int(np.concatenate(lives[told:]).sum()))
            told, again = t + 1, time.monotonic() + _TELL
    acting, done = np.concatenate(lives).reshape(steps, n), np.concatenate(ends).reshape(steps, n)
    reward, actor = np.concatenate(rewards).reshape(steps, n), np.concatenate(actors).reshape(steps, n)
    starts = np.ones((steps, n), np.bool_)
    starts[1:] = done[:-1] | ~acting[:-1]  # under NEXT_STEP the episode starts after the ignored step
    ended = _finished(reward, done, acting)
    labels = driver.labels(seen if truths is None else truths)
    whole = _steps(kept, reward, done, seen) if shard.whole else None
    return Rollout(seen, labels, acting, starts & acting, actor, *ended, masks, truths, whole)


def _steps(kept: list[tuple[Array, Ends | None]], reward: Floats, done: Bools, seen: Array) -> Steps:
    ends = [end for _, end in kept if end is not None]
    last = np.concatenate([end.observation for end in ends]) if ends else seen[:0, 0]
    terminated = np.concatenate([end.terminated for end in ends]) if ends else np.zeros(0, np.bool_)
    return Steps(np.stack([action for action, _ in kept]), reward, done, terminated, last)


def _finished(reward: Floats, done: Bools, acting: Bools) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Returns, lengths and slots of the episodes that ended, in the order of their ends, of T steps [T, N] each."""
    total, length = reward.cumsum(0), acting.cumsum(0)
    before = np.zeros(reward.shape[1]), np.zeros(reward.shape[1], np.int64)  # at the end of the last episode
    returns, lengths, slots = [], [], []
    for t, slot in np.argwhere(done):
        returns.append(float(total[t, slot] - before[0][slot]))
        lengths.append(int(length[t, slot] - before[1][slot]))
        slots.append(int(slot))
        before[0][slot], before[1][slot] = total[t, slot], length[t, slot]
    return np.array(returns), np.array(lengths, np.int64), np.array(slots, np.int64)


class _Driver:
    """Chooses who acts in each slot and how; keeps the teacher's labels where its forward was needed anyway."""

    def __init__(self, shard: Shard, teacher: TeacherPolicy, students: Students | GruMembers | None) -> None:
        self._shard, self._teacher, self._students = shard, teacher, students
        key = SeedKey(shard.key.root, "act", shard.key.round, shard.key.shard)
        self._rng = key.numpy()
        self._generator = key.torch(teacher.device)
        self._labels: list[Array] = []
        self.remembers = is_recurrent(teacher) or isinstance(students, GruMembers)
        self._state = teacher.initial_state(shard.n_envs) if is_recurrent(teacher) else None

    def decide(
        self,
        observation: Array,
        mask: Bools | None = None,
        start: Bools | None = None,
        truth: Array | None = None,
    ) -> tuple[Array, NDArray[np.int32]]:
        """Environment actions [N, ...] allowed by `mask`, and who chose them [N]: -1 for the teacher, else the slot.

        `start` [N] says where an episode begins; a teacher with a memory needs it, and sees every step. `truth`
        [N, *O] is what the teacher sees, where it is not what the students see.
        """
        shard = self._shard
        slots = np.arange(shard.n_envs, dtype=np.int32)
        obs = torch.from_numpy(observation).to(self._teacher.device)
        true = obs if truth is None else torch.from_numpy(truth).to(self._teacher.device)
        if shard.beta <= 0 and self._students is not None:
            if self._state is not None:
                self._label(true, mask, start)
            return self._student_actions(obs, mask, start), slots
        params = self._label(true, mask, start)
        actions = self._teacher_actions(params)
        if shard.beta >= 1 or self._students is None:
            return actions, np.full(shard.n_envs, TEACHER, np.int32)
        teacher_acts = self._rng.random(shard.n_envs) < shard.beta
        mixed = self._student_actions(obs, mask, start)
        mixed[teacher_acts] = actions[teacher_acts]
        return mixed, np.where(teacher_acts, TEACHER, slots).astype(np.int32)

    def labels(self, observations: Array) -> NDArray[np.float32] | None:
        """The teacher's parameters [T, N, P], where choosing the actions needed them; `label` makes the others."""
        del observations
        return np.stack(self._labels) if self._labels else None

    def _label(self, obs: Tensor, mask: Bools | None, start: Bools | None) -> Tensor:
        teacher = self._teacher
        if is_recurrent(teacher):
            assert self._state is not None and start is not None
            params, self._state = teacher.step(obs, self._state, torch.from_numpy(start))
            params = params if mask is None else apply_mask(teacher.distribution, params, mask)
        else:
            params = masked_params(teacher, obs, mask)
        self._labels.append(params.cpu().numpy())
        return params

    def _student_actions(self, obs: Tensor, mask: Bools | None, start: Bools | None) -> Array:
        assert self._students is not None
        deterministic = self._shard.acting.student_stochastic is not True
        if isinstance(self._students, GruMembers):
            assert start is not None
            params = self._students.step(obs, torch.from_numpy(start))
        else:
            params = self._students(obs)
        if mask is not None:
            params = apply_mask(self._teacher.distribution, params, mask)
        return act(self._teacher, params, deterministic=deterministic, generator=self._generator)

    def _teacher_actions(self, params: Tensor) -> Array:
        teacher, config = self._teacher, self._shard.acting
        own_noise = not (teacher.deterministic_teacher or teacher.value_teacher)
        deterministic = not (config.teacher_stochastic and own_noise)
        actions = act(teacher, params, deterministic=deterministic, generator=self._generator)
        if own_noise or not config.teacher_stochastic or config.noise == 0:
            return actions
        return perturbed(actions, teacher, config.noise, self._rng)


def label(rollout: Rollout, teacher: TeacherPolicy, progress: Progress) -> NDArray[np.float32]:
    """The teacher's parameters [T, N, P] for every visited state, each labelled once, in batches.

    Raises NumericsError when the teacher gives a NaN or infinity to a state that will be learned from.
    """
    params = rollout.params
    if params is None:
        seen = rollout.observation if rollout.truth is None else rollout.truth
        flat, parts = seen.reshape(-1, *seen.shape[2:]), []
        masks = None if rollout.mask is None else rollout.mask.reshape(len(flat), -1)
        for part in params_on(teacher, flat, masks):
            progress.check()
            parts.append(part.cpu().numpy())
        params = np.concatenate(parts).reshape(*seen.shape[:2], -1)
    _check_labels(rollout, params, teacher)
    return params


def _check_labels(rollout: Rollout, params: NDArray[np.float32], teacher: TeacherPolicy) -> None:
    known = np.isfinite(params)
    if rollout.mask is not None:  # a masked action's logit is infinite, and no other
        known |= np.isinf(apply_mask(teacher.distribution, torch.zeros(params.shape), rollout.mask).numpy())
    finite = known.all(-1) | ~rollout.acting
    if not finite.all():
        t, n = np.argwhere(~finite)[0]
        raise NumericsError(
            f"label is not finite ({params[t, n]}) for the observation {rollout.observation[t, n]} at step {t} of "
            f"environment {n}; the teacher's weights or statistics do not suit this environment"
        )
