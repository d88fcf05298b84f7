"""Fails when one observation and a batch of one differ, or when an array that torch cannot take gets through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.loss import acting
from policykd.loss.distributions import Categorical, DiagGaussian, Distribution
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.packing import packing_of
from policykd.spine.spaces import action_map

SPACE = spaces.Box(-1, 1, (3,), np.float32)


class Echo:
    """A policy whose parameters are its observation."""

    device = torch.device("cpu")

    def __init__(self, action_space: spaces.Space[Any], distribution: Distribution) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (distribution.n_params,), np.float32)
        self.packing = packing_of(self.observation_space)
        self.action_space, self.distribution = action_space, distribution
        self.action_map: ActionMap = action_map(action_space, unscale=False)

    def distribution_params(self, observation: torch.Tensor) -> torch.Tensor:
        return observation.float()


def test_one_observation_and_a_batch_of_one_agree() -> None:
    policy = Echo(spaces.Discrete(3), Categorical(3))
    observation = np.array([0.0, 5.0, 1.0], np.float32)
    single = acting.predict(policy, observation, deterministic=True)
    batch = acting.predict(policy, observation[None], deterministic=True)
    assert (single.shape, batch.shape) == ((), (1,))
    assert single == batch[0] == 1


def test_samples_repeat_with_the_generator_and_stay_in_the_box() -> None:
    policy = Echo(SPACE, DiagGaussian(3))
    batch = np.tile(np.array([0.0, 0.5, -2.0, 0.0, 0.0, 0.0], np.float32), (200, 1))

    def draw(seed: int) -> np.ndarray:
        return acting.predict(policy, batch, deterministic=False, generator=torch.Generator().manual_seed(seed))

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))
    assert SPACE.contains(draw(1)[0])
    assert np.abs(draw(1)).max() == 1.0
    mode = acting.predict(policy, batch, deterministic=True)
    np.testing.assert_array_equal(mode[0], np.array([0.0, 0.5, -1.0], np.float32))


def test_act_leaves_no_gradient() -> None:
    policy = Echo(SPACE, DiagGaussian(3))
    params = torch.zeros(2, 6, requires_grad=True)
    assert acting.act(policy, params, deterministic=False).shape == (2, 3)


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8", "i1", "i8", ">f4", ">f8", "f2", "?", "u1"])
def test_every_numeric_array_becomes_one_that_torch_takes(dtype: str) -> None:
    values = np.array([0, 1, 1]).astype(dtype)
    batch, single = acting.as_batch(values, packing_of(SPACE))
    assert single
    assert torch.from_numpy(batch).double().tolist() == [[0.0, 1.0, 1.0]]


def test_views_and_read_only_arrays_are_taken_and_stay_as_they_are() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    batch, single = acting.as_batch(grid.T, packing_of(SPACE))
    assert not single
    np.testing.assert_array_equal(torch.from_numpy(batch).numpy(), grid.T)
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    torch.from_numpy(acting.as_batch(frozen, packing_of(SPACE))[0]).add_(1)
    assert not frozen.any()


@pytest.mark.parametrize("observation", [np.zeros(2), np.zeros((2, 2)), np.zeros((1, 1, 3)), 0.0, [[]]])
def test_wrong_shapes_are_refused(observation: Any) -> None:
    with pytest.raises(InputError, match=r"expected \(3,\) or a batch \(B, 3,\)") as error:
        acting.as_batch(observation, packing_of(SPACE))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("observation", [(np.zeros(3), {}), {"a": np.zeros(3)}])
def test_what_reset_returns_is_refused(observation: Any) -> None:
    with pytest.raises(InputError, match="pass the observation alone"):
        acting.as_batch(observation, packing_of(SPACE))
