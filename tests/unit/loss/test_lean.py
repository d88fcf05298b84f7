"""Fails when the losses in NumPy differ from those in torch, in value or gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policykd.loss.distributions import Bernoulli, Categorical, DiagGaussian, MultiCategorical, SquashedDiagGaussian
from policykd.loss.lean import slope_of
from policykd.loss.losses import Loss, make_loss

STUDENTS, BATCH = 3, 32
DISTRIBUTIONS = [Categorical(1), Categorical(5), DiagGaussian(2), SquashedDiagGaussian(1), Bernoulli(3)]
DISTRIBUTIONS += [MultiCategorical((2, 3))]
LOSSES = [Loss(), make_loss("reverse_kl", 1.0, "hinton"), make_loss("forward_kl", 2.0, "hinton")]


def sides(distribution: Any, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The teacher's parameters of two mini-batches [2, B, P]; the students' means [S, B, M] and log_std [S, 1, A]."""
    generator = torch.Generator().manual_seed(0)
    n, means = distribution.n_params, distribution.n_means
    teacher = spread * torch.randn(2, BATCH, n, generator=generator)
    student = spread * torch.randn(STUDENTS, BATCH, means, generator=generator)
    log_std = torch.randn(STUDENTS, 1, n - means, generator=generator)
    teacher[..., means:] /= spread  # spreads of e^3 and e^-3 lose digits in float32 whoever computes
    return teacher, student, log_std


def both(loss: Loss, distribution: Any, sides: Any, k: int = 1) -> tuple[Any, Any]:
    """(loss [S], d_means, d_log_std) by NumPy and, by autograd through the loss's definition, by torch."""
    teacher, means, log_std = sides
    out = np.empty_like(means.numpy()), np.empty_like(log_std.numpy())
    value = slope_of(loss, distribution, teacher)(k, means.numpy().copy(), log_std.numpy(), *out)
    leaves = means.double().requires_grad_(), log_std.double().requires_grad_()
    whole = torch.cat([leaves[0], leaves[1].expand(-1, BATCH, -1)], -1)
    expected = loss(distribution, teacher[k].double(), whole).mean(-1)
    slopes = torch.autograd.grad(expected.sum(), leaves, allow_unused=True)
    return (value, *out), (expected.detach().numpy(), *(x.numpy() for x in slopes if x is not None))


@pytest.mark.parametrize("loss", LOSSES, ids=["plain", "reverse", "tempered"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_value_and_gradient_are_those_of_torch(distribution: Any, loss: Loss) -> None:
    found, expected = both(loss, distribution, sides(distribution))
    for ours, theirs in zip(found, expected, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)


def test_a_masked_loss_stays_masked() -> None:
    teacher, means, log_std = sides(Categorical(4))
    teacher[:, ::2, 1] = -torch.inf
    found, expected = both(Loss(masked=True), Categorical(4), (teacher, means, log_std))
    assert (found[1][:, ::2, 1] == 0).all()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)


def test_an_action_that_the_teacher_never_takes() -> None:
    teacher, means, log_std = sides(Categorical(4))
    teacher[..., 2] = -torch.inf
    found, _ = both(Loss(), Categorical(4), (teacher, means, log_std))
    expected, slope = Loss().with_gradient(Categorical(4), teacher[1], means)
    np.testing.assert_allclose(found[0], expected.mean(-1), rtol=1e-4)
    np.testing.assert_allclose(found[1], slope / BATCH, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("distribution", [Categorical(4), DiagGaussian(2)], ids=repr)
def test_what_is_no_number_shows_in_the_loss(distribution: Any, value: float) -> None:
    teacher, means, log_std = sides(distribution)
    teacher[1, 3, 0] = value
    with np.errstate(all="ignore"):
        found, _ = both(Loss(), distribution, (teacher, means, log_std))
    assert not np.isfinite(found[0]).any()


def test_logits_of_any_size() -> None:
    teacher, means, log_std = sides(Categorical(3), spread=300.0)
    found, expected = both(Loss(), Categorical(3), (teacher, means, log_std))
    for ours, theirs in zip(found, expected, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
