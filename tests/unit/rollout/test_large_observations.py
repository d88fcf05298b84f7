"""Fails when large observations are computed on, or kept, by the thousand, or when the chunks of small ones change."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from policykd.evaluation import episodes as module
from policykd.evaluation.agreement import agreement_on
from policykd.evaluation.entropy import entropy_on
from policykd.evaluation.episodes import random_actor, run_episodes
from policykd.learn.setup.defaults import Measured, _q_temperature
from policykd.loss.distributions import Categorical
from policykd.rollout.collect import Rollout, label
from policykd.rollout.envs import factory_spec
from policykd.spine.config.schema import Config
from policykd.spine.packing import packing_of
from tests.support.core import Quiet, StubTeacher

IMAGE = spaces.Box(0, 255, (4, 84, 84), np.uint8)
VECTOR = spaces.Box(-1, 1, (8,), np.float32)


def recording(space: spaces.Space[Any], **more: Any) -> tuple[StubTeacher, list[int]]:
    sizes: list[int] = []

    def function(observation: Tensor) -> Tensor:
        sizes.append(len(observation))
        mean = observation.flatten(1).mean(1) / 255
        return torch.stack([mean, -mean, 0 * mean], -1)

    return StubTeacher(function, Categorical(3), observation_space=space, **more), sizes


def rollout(seen: np.ndarray) -> Rollout:
    n = len(seen)
    row, none = np.ones((n, 1), np.bool_), np.zeros(0)
    zeros = np.zeros((n, 1), np.int32)
    return Rollout(seen[:, None], None, row, row, zeros, none, none.astype(np.int64), none.astype(np.int64))


def test_how_many_are_taken_at_once() -> None:
    assert packing_of(VECTOR).rows(16_384) == packing_of(spaces.Box(-1, 1, (1024,), np.float32)).rows(16_384) == 16_384
    assert packing_of(spaces.Discrete(500)).rows(4096) == 4096
    assert packing_of(spaces.Discrete(1_000_000)).rows(16_384) == 16  # one-hot
    assert packing_of(spaces.Box(-1, 1, (8192,), np.float64)).rows(16_384) == 1024
    assert packing_of(IMAGE).rows(16_384) * 4 * 4 * 84 * 84 <= 2**24
    nested = packing_of(spaces.Dict({"image": IMAGE, "speed": VECTOR}))
    assert nested.rows(16_384) <= packing_of(IMAGE).rows(16_384) < 256
    assert packing_of(spaces.Box(0, 255, (3, 4096, 4096), np.uint8)).rows(16_384) == 1


@pytest.mark.parametrize(("space", "n"), [(IMAGE, 400), (VECTOR, 20_000)])
@pytest.mark.parametrize("what", ["labels", "agreement", "entropy"])
def test_so_many_are_computed_at_once(what: str, space: spaces.Box, n: int) -> None:
    seen = np.random.default_rng(0).integers(0, 255, (n, *space.shape)).astype(space.dtype)
    teacher, sizes = recording(space)
    if what == "labels":
        params = label(rollout(seen), teacher, Quiet())
        np.testing.assert_array_equal(params[-1, 0], teacher.distribution_params(torch.from_numpy(seen[-1:]))[0])
        sizes.pop()
    elif what == "agreement":
        assert agreement_on(teacher, teacher, seen) == 1.0
    else:
        assert entropy_on(teacher, seen) > 0
    assert max(sizes) == packing_of(space).rows(16_384)
    assert sum(sizes) == (2 * n if what == "agreement" else n), "each state once for each policy"


def test_the_scale_of_values_is_measured_in_chunks() -> None:
    seen = np.random.default_rng(0).integers(0, 255, (400, *IMAGE.shape), np.uint8)
    teacher, sizes = recording(IMAGE, value_teacher=True)
    found = _q_temperature(Config(), teacher, Measured(1.0, seen))
    assert max(sizes) == packing_of(IMAGE).rows(16_384) and sum(sizes) == 400
    whole = teacher.distribution_params(torch.from_numpy(seen)).topk(2, -1).values
    assert found == pytest.approx(float((whole[:, 0] - whole[:, 1]).median()) / 2)


class Frames(gym.Env[Any, Any]):
    observation_space, action_space = spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = 30
        return np.full((64, 64, 3), self.left, np.uint8), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return np.full((64, 64, 3), self.left, np.uint8), 1.0, self.left == 0, False, {}


def test_visited_states_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_VISITED_BYTES", 2**20)
    actor = random_actor(spaces.Discrete(2), 0)
    found = run_episodes(factory_spec(Frames), actor, range(8), Quiet(), keep_visited=20_000)
    one = 64 * 64 * 3
    assert 2**19 <= found.visited.nbytes <= 2**20 + 8 * one
    assert len(np.unique(found.visited[:, 0, 0, 0])) > 5, "an even sample of the episode"
    few = run_episodes(factory_spec(Frames), actor, range(8), Quiet(), keep_visited=16)
    assert 8 <= len(few.visited) <= 24
    assert module._VISITED_BYTES == 2**20
