"""Fails when the hand-written passes through time of a GRU family differ from autograd's, for any distribution and
width."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from policykd.data.sequences import Chunks
from policykd.learn.updates.update import Learner
from policykd.loss.losses import Loss
from policykd.spine.config.data import UpdateConfig
from policykd.students.recurrent import GruFamily
from policykd.students.spec import MemberSpec
from tests.support.core import FAMILIES

WIDTHS = {"one": [(6, 0)], "alike and not": [(1, 0), (4, 0), (4, 1), (4, 2), (9, 0)], "wide": [(120, 0)]}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("widths", WIDTHS)
def test_the_gradient_is_autograds(name: str, widths: str) -> None:
    generator = torch.Generator().manual_seed(1)
    distribution, inputs, shape = FAMILIES[name][0], 3, (2, 8, 11)
    family = GruFamily([MemberSpec(1, w, seed, "gru") for w, seed in WIDTHS[widths]], inputs, distribution)
    family.flat.add_(torch.randn(family.flat.shape, generator=generator), alpha=0.3)
    before = [torch.randn(*shape[:2], spec.width, generator=generator).tanh() for spec in family.specs]
    chunks = Chunks(
        torch.randn(*shape, inputs, generator=generator),
        0.5 * torch.randn(*shape, distribution.n_params, generator=generator),
        (torch.rand(shape, generator=generator) > 0.3).float(),
        before,
    )
    learner = Learner(family, Loss(), UpdateConfig(n_updates=1), 1)
    ours, torchs = learner._along(chunks), learner._by_autograd(chunks, family)
    for k in range(2):
        loss, gradient = ours(k).numpy().copy(), family.grad.numpy().copy()
        assert np.abs(gradient).sum() > 0
        assert_allclose(loss, torchs(k).numpy(), rtol=1e-5)
        assert_allclose(gradient, family.grad.numpy(), rtol=1e-4, atol=2e-6 * float(family.grad.abs().max()))
