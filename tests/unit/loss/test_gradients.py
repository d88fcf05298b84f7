"""Closed-form gradients against autograd. Red when a formula, a sign or a factor is wrong."""

from __future__ import annotations

import pytest
import torch

from policykd.loss.distributions import Bernoulli, Categorical, DiagGaussian, MultiCategorical, SquashedDiagGaussian
from policykd.loss.losses import Loss

FAMILIES = [Categorical(5), MultiCategorical((2, 4, 3)), Bernoulli(3), DiagGaussian(3), SquashedDiagGaussian(2)]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("shape", [(7,), (4, 7)])
def test_closed_form_equals_autograd(family, shape):
    torch.manual_seed(0)
    teacher = torch.randn(7, family.n_params, dtype=torch.float64)
    student = torch.randn(*shape, family.n_params, dtype=torch.float64, requires_grad=True)
    expected = family.kl(teacher, student)
    (gradient,) = torch.autograd.grad(expected.sum(), student)
    kl, closed = family.kl_with_gradient(teacher, student.detach())
    torch.testing.assert_close(kl, expected.detach())
    torch.testing.assert_close(closed, gradient)


def test_a_masked_action_has_no_gradient_and_makes_no_nan():
    teacher, student = torch.randn(3, 4), torch.randn(2, 3, 4)
    teacher[:, 1] = student[..., 1] = float("-inf")
    kl, gradient = Categorical(4).kl_with_gradient(teacher, student)
    assert torch.isfinite(kl).all()
    assert torch.isfinite(gradient).all()
    assert (gradient[..., 1] == 0).all()


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_a_configured_loss_gives_its_own_gradient(family, kind, temperature):
    torch.manual_seed(1)
    loss = Loss(kind, temperature, "hinton")
    teacher = torch.randn(5, family.n_params, dtype=torch.float64)
    student = torch.randn(2, 5, family.n_params, dtype=torch.float64)
    value, gradient = loss.with_gradient(family, teacher, student)
    torch.testing.assert_close(value, loss(family, teacher, student))
    step = 1e-6 * torch.randn_like(student)
    change = (loss(family, teacher, student + step) - loss(family, teacher, student - step)).sum() / 2
    torch.testing.assert_close(change, (gradient * step).sum(), rtol=1e-5, atol=1e-12)
