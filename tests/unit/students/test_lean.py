"""Fails when a family's passes in NumPy differ from those in torch, whatever way their products are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.students.family import Family
from policykd.students.lean import Passes, _pieces
from policykd.students.spec import MemberSpec

SPECS = [
    MemberSpec(0, 0),
    MemberSpec(1, 5),
    MemberSpec(1, 8),
    MemberSpec(2, 6),
    MemberSpec(2, 64, 0),
    MemberSpec(2, 64, 1),
]


def test_products_are_cut_into_equal_pieces() -> None:
    assert [_pieces(256, macs) for macs in (1, 1024, 1025, 4096, 16 * 1024, 16 * 1024 + 1)] == [1, 1, 2, 4, 16, 0]
    assert _pieces(251, 4096) == 0  # a prime number of states
    assert _pieces(3, 2**18) == 3


@pytest.mark.parametrize("batch", [1, 64, 251, 256, 2048])  # whole, in pieces and, from 16 pieces on or of 251, torch's
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("distribution", [Categorical(3), DiagGaussian(2)], ids=repr)
def test_forward_and_gradient_are_those_of_torch(distribution: Any, activation: Any, batch: int) -> None:
    family = Family(SPECS, 7, distribution, activation=activation)
    rng = np.random.default_rng(0)
    family.flat += torch.from_numpy(0.02 * rng.standard_normal(len(family.flat)).astype(np.float32)) * (
        family.flat != 0
    )
    x = rng.standard_normal((batch, 7)).astype(np.float32)
    d = rng.standard_normal((len(SPECS), batch, distribution.n_params)).astype(np.float32)
    saved: list[list[torch.Tensor]] = []
    expected = family.forward_saving(torch.from_numpy(x), saved).numpy()
    family.backward(torch.from_numpy(d), saved)
    gradient = family.grad.clone()
    family.grad.fill_(torch.nan)
    passes = Passes(family, batch)
    for _ in range(2):  # buffers hold nothing from the last time
        passes.forward(x)
        np.testing.assert_allclose(passes.means, expected[..., : family.n_means], rtol=1e-4, atol=1e-5)
        passes.d_means[...] = d[..., : family.n_means]
        passes.backward()
    passes.d_log_std[...] = d[..., family.n_means :].sum(1, keepdims=True)
    scale = float(gradient.abs().max())
    np.testing.assert_allclose(family.grad.numpy() / scale, gradient.numpy() / scale, atol=3e-6)


def test_weights_are_read_as_they_are_now() -> None:
    family = Family([MemberSpec(1, 4)], 2, Categorical(2))
    passes, x = Passes(family, 3), np.ones((3, 2), np.float32)
    passes.forward(x)
    before = passes.means.copy()
    family.flat.mul_(2.0)
    passes.forward(x)
    assert not np.allclose(before, passes.means)
