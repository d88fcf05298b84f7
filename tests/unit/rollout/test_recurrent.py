"""Fails when a teacher's memory crosses an episode's end or a slot, in collection or in episodes, or when it misses a
step because the student acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from policykd.evaluation import episodes as module
from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.evaluation.watched import agreement_in, watched
from policykd.loss.distributions import Categorical
from policykd.rollout.collect import Shard, collect, label
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.errors import InputError
from policykd.spine.seeding import SeedKey
from tests.support.core import Counting, Quiet, StubTeacher


@dataclass
class Counter(StubTeacher):
    """Remembers the sum of what it saw in this episode; its logits are waves of that sum and of the number of steps."""

    recurrent: bool = True

    def initial_state(self, n: int) -> tuple[Tensor, Tensor]:
        return torch.full((1, n, 1), 7e7), torch.zeros(1, n, 1)

    def step(self, observation: Tensor, state: Any, episode_start: Tensor) -> Any:
        keep = ~episode_start.view(1, -1, 1)
        total = torch.where(keep, state[0], 0.0) + observation.float().sum(-1).view(1, -1, 1)
        steps = torch.where(keep, state[1], 0.0) + 1
        logits = torch.stack([total[0, :, 0].sin(), steps[0, :, 0].cos(), total[0, :, 0].cos()], -1)
        return logits, (total, steps)

    def distribution_params(self, observation: Tensor) -> Tensor:
        raise InputError("memory")


def teacher(**more: Any) -> Counter:
    return Counter(lambda x: x, **more)


def expected_labels(observation: np.ndarray, start: np.ndarray) -> np.ndarray:
    """A plain loop over slots and steps."""
    labels = np.full((*start.shape, 3), np.nan)
    for slot in range(start.shape[1]):
        total, steps = 0.0, 0
        for t in range(start.shape[0]):
            if start[t, slot]:
                total, steps = 0.0, 0
            total, steps = total + float(observation[t, slot].sum()), steps + 1
            labels[t, slot] = np.sin(total), np.cos(steps), np.cos(total)
    return labels


@dataclass
class Two(Counter):
    """The same with two logits, for CartPole."""

    def step(self, observation: Tensor, state: Any, episode_start: Tensor) -> Any:
        logits, state = super().step(observation, state, episode_start)
        return logits[:, :2], state


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("backend", ["sync", "native"])
def test_labels_follow_each_slot_whoever_acts(beta: float, backend: Any) -> None:
    shard = Shard(SeedKey(7, "collect", 1, 0), 3, 80, beta, RolloutConfig(teacher_stochastic=False))
    spec = factory_spec(Counting) if backend == "sync" else EnvSpec("CartPole-v1", backend="native")
    master = teacher() if backend == "sync" else Two(lambda x: x, Categorical(2), spaces.Discrete(2))
    student = torch.tensor([0.0, 5.0, -9.0])[: master.distribution.n_params]
    rollout = collect(shard, spec, master, lambda x: student.expand(len(x), -1), Quiet())
    assert rollout.params is not None and rollout.start.sum() > 6
    params, live = label(rollout, master, Quiet()), rollout.acting
    expected = expected_labels(rollout.observation, rollout.start)[..., : params.shape[-1]]
    np.testing.assert_allclose(params[live], expected[live], rtol=1e-4, atol=1e-4)
    assert live.all() == (backend == "sync")


class Noting(Counting):
    """Accepts the mode of `Counter`'s logits alone."""

    def reset(self, **kwargs: Any) -> Any:
        found = super().reset(**kwargs)
        self.total, self.steps = 0.0, 0
        return found

    def step(self, action: Any) -> Any:
        self.total, self.steps = self.total + self.key + self.t, self.steps + 1
        expected = int(np.argmax([np.sin(self.total), np.cos(self.steps), np.cos(self.total)]))
        assert action == expected, f"key {self.key}, t {self.t}: {action} is not {expected}"
        return super().step(action)


@pytest.mark.parametrize("slots", [1, 3, 32])
def test_slots_that_end_forget_their_episode(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", slots)
    actor = policy_actor(teacher(), deterministic=True, seed=0)
    for _ in range(2):  # the same actor in a second set of episodes begins anew
        assert len(run_episodes(factory_spec(Noting), actor, range(40), Quiet()).returns) == 40


@pytest.mark.parametrize("slots", [1, 3, 32])
def test_agreement_is_counted_while_the_student_acts(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", slots)
    student = StubTeacher(lambda x: torch.tensor([0.0, 5.0, 2.0]).expand(len(x), -1))
    actor = watched(policy_actor(student, deterministic=True, seed=0), teacher())
    found = run_episodes(factory_spec(Counting), actor, range(40), Quiet(), keep_visited=10_000)
    same = total = 0
    for key in range(40):
        seen = np.array([x for x in found.visited if x[0] == key])
        seen = seen[seen[:, 1].argsort()]
        sums = np.cumsum(seen.sum(1))
        steps = np.arange(1, len(seen) + 1)
        same += int((np.argmax([np.sin(sums), np.cos(steps), np.cos(sums)], 0) == 1).sum())
        total += len(seen)
    assert 0 < same < total
    assert agreement_in(found, actor, teacher(), student) == pytest.approx(same / total)


def test_policies_without_memory_are_not_watched() -> None:
    plain = StubTeacher(lambda x: x)
    actor = policy_actor(plain, deterministic=True, seed=0)
    assert watched(actor, plain) is actor and watched(actor, None) is actor
    with pytest.raises(ValueError, match="memory"):
        policy_actor(teacher(), deterministic=True, seed=0)(np.zeros((1, 2), np.float32))
