"""Fails when the normaliser is not clip((x - mean) / std, limit), or when a still feature is blown up."""

from __future__ import annotations

import numpy as np
import torch

from policykd.students.normaliser import Normaliser


def test_measured_statistics() -> None:
    states = np.random.default_rng(0).normal([5.0, -2.0], [0.5, 30.0], (4000, 2))
    normal = Normaliser.measured(states)
    out = normal.apply(torch.from_numpy(states)).numpy()
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-4)
    assert out.dtype == normal.mean.dtype == normal.scale.dtype == np.float32


def test_formula_and_limit() -> None:
    normal = Normaliser.of_teacher(np.array([1.0, 2.0]), np.array([2.0, 0.5]), 3.0)
    x = torch.tensor([[3.0, 2.5], [100.0, -100.0], [1.0, 2.0]])
    before = x.clone()
    np.testing.assert_allclose(normal.apply(x).numpy(), [[1, 1], [3, -3], [0, 0]])
    assert torch.equal(x, before), "the caller's observations must stay"
    np.testing.assert_allclose(normal.apply(x.double()).numpy(), [[1, 1], [3, -3], [0, 0]])
    np.testing.assert_allclose(normal.apply(torch.tensor([[5, 3]])).numpy(), [[2, 2]])


def test_a_feature_that_hardly_moves_is_only_centred() -> None:
    states = np.stack([np.full(100, 7.0), np.linspace(-2, -2 + 1e-6, 100), np.linspace(-1, 1, 100)], 1)
    normal = Normaliser.measured(states)
    assert normal.scale[0] == normal.scale[1] == 1.0
    assert abs(normal.apply(torch.tensor([[7.01, -2.0, 0.0]]))[0, 0] - 0.01) < 1e-5


def test_a_feature_in_small_units_is_scaled():
    normal = Normaliser.measured(np.linspace(-1e-6, 1e-6, 100)[:, None])
    assert abs(normal.apply(torch.tensor([[1e-6]]))[0, 0] - 1.715) < 0.01
