"""Fails when a temperature convention, a direction of the KL or a factor differs from the formula written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from policykd.loss.distributions import Bernoulli, Categorical, DiagGaussian, MultiCategorical, SquashedDiagGaussian
from policykd.loss.losses import forward_kl, make_loss, reverse_kl

CONVENTIONS = ("hinton", "rusu", "untempered")
T = 2.5


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_kl(p: Tensor, q: Tensor) -> Tensor:
    """Of probabilities, summed as it is written in a textbook."""
    return (p * (p / q).log()).sum(-1)


def test_categorical_conventions() -> None:
    teacher, student = logits(0, 6, 4), logits(1, 3, 6, 4)

    def soft(x: Tensor, t: float) -> Tensor:
        return x.div(t).exp() / x.div(t).exp().sum(-1, keepdim=True)

    expected = {
        "hinton": T**2 * plain_kl(soft(teacher, T), soft(student, T)),
        "rusu": plain_kl(soft(teacher, T), soft(student, 1)),
        "untempered": plain_kl(soft(teacher, 1), soft(student, 1)),
    }
    reverse = {
        "hinton": T**2 * plain_kl(soft(student, T), soft(teacher, T)),
        "rusu": plain_kl(soft(student, 1), soft(teacher, T)),
        "untempered": plain_kl(soft(student, 1), soft(teacher, 1)),
    }
    for convention in CONVENTIONS:
        found = forward_kl(Categorical(4), teacher, student, T, convention)
        assert found.shape == (3, 6)
        torch.testing.assert_close(found, expected[convention])
        torch.testing.assert_close(reverse_kl(Categorical(4), teacher, student, T, convention), reverse[convention])


@pytest.mark.parametrize("kind", [DiagGaussian, SquashedDiagGaussian])
def test_gaussian_conventions(kind: Any) -> None:
    m_t, m_s, s_t, s_s = 0.3, -0.5, 0.7, 1.3
    teacher = torch.tensor([[m_t, s_t]], dtype=torch.float64)
    student = torch.tensor([[m_s, s_s]], dtype=torch.float64)
    teacher[:, 1], student[:, 1] = teacher[:, 1].log(), student[:, 1].log()

    def kl(var_p: float, var_q: float) -> Tensor:
        p, q = torch.tensor(var_p, dtype=torch.float64), torch.tensor(var_q, dtype=torch.float64)
        return 0.5 * ((q / p).log() + p / q + (m_t - m_s) ** 2 / q - 1).view(1)

    expected = {
        "hinton": T**2 * kl(T * s_t**2, T * s_s**2),
        "rusu": kl(T * s_t**2, s_s**2),
        "untempered": kl(s_t**2, s_s**2),
    }
    for convention in CONVENTIONS:
        torch.testing.assert_close(forward_kl(kind(1), teacher, student, T, convention), expected[convention])


DISTRIBUTIONS = [Categorical(4), MultiCategorical((2, 2)), Bernoulli(4), DiagGaussian(2), SquashedDiagGaussian(2)]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("loss", [forward_kl, reverse_kl])
def test_temperature_one_is_the_same_for_all(distribution: Any, convention: Any, loss: Any) -> None:
    teacher, student = logits(0, 5, 4), logits(1, 2, 5, 4)
    plain = distribution.kl(teacher, student) if loss is forward_kl else distribution.kl(student, teacher)
    assert torch.equal(loss(distribution, teacher, student, 1.0, convention), plain)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_reverse_is_forward_with_swapped_arguments(distribution: Any) -> None:
    teacher, student = logits(0, 5, 4), logits(1, 5, 4)
    # under rusu only the teacher is tempered, so a swap also swaps who is tempered
    for convention in ("hinton", "untempered"):
        swapped = forward_kl(distribution, student, teacher, T, convention)
        assert torch.equal(reverse_kl(distribution, teacher, student, T, convention), swapped)
    assert not torch.allclose(reverse_kl(distribution, teacher, student), forward_kl(distribution, teacher, student))


def test_the_gradient_of_hinton_is_t_times_the_difference_of_soft_targets() -> None:
    teacher, student = logits(0, 5, 4), logits(1, 5, 4).requires_grad_()
    forward_kl(Categorical(4), teacher, student, T, "hinton").sum().backward()
    expected = T * (F.softmax(student.detach() / T, -1) - F.softmax(teacher / T, -1))
    torch.testing.assert_close(student.grad, expected)


def test_rusu_below_one_sharpens_the_teacher() -> None:
    teacher, student = logits(0, 5, 4), logits(1, 5, 4)
    hard = F.cross_entropy(student, teacher.argmax(-1), reduction="none")
    torch.testing.assert_close(forward_kl(Categorical(4), teacher, student, 0.001, "rusu"), hard)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("convention", ["hinton", "rusu"])
def test_gradients_against_finite_differences(distribution: Any, kind: Any, convention: Any) -> None:
    loss = make_loss(kind, T, convention)
    teacher, student = logits(0, 3, 4), logits(1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(distribution, teacher, s), (student,))
