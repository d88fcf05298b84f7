"""Fails when a loss is not what its equation says, pulls away from the teacher, or breaks on masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, kl_divergence

from policykd.loss.distributions import Bernoulli, Categorical, DiagGaussian, Distribution, MultiCategorical
from policykd.loss.losses import Loss
from policykd.loss.terms import TERMS, jensen_shannon, refuse_undefined
from policykd.spine.errors import InputError

DISTRIBUTIONS: list[Distribution] = [Categorical(4), MultiCategorical((2, 3)), Bernoulli(3), DiagGaussian(2)]
KINDS = list(TERMS)


def drawn(distribution: Distribution, seed: int, *shape: int) -> Tensor:
    return 0.7 * torch.randn(*shape, distribution.n_params, generator=torch.Generator().manual_seed(seed))


def defined(kind: str, distribution: Distribution) -> bool:
    return not (kind == "jsd" and isinstance(distribution, DiagGaussian))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_descending_any_loss_comes_to_the_teachers_action(kind, distribution) -> None:
    if not defined(kind, distribution):
        with pytest.raises(InputError, match=r"loss\.kind jsd.*forward_kl"):
            refuse_undefined(kind, distribution)
        return
    teacher, student = drawn(distribution, 1, 6), drawn(distribution, 2, 3, 6)
    loss = Loss(kind)
    first = loss(distribution, teacher, student)
    assert first.shape == (3, 6)
    adam = torch.optim.Adam([student], lr=0.05)
    for _ in range(400):
        student.grad = loss.with_gradient(distribution, teacher, student)[1]
        adam.step()
    assert (loss(distribution, teacher, student) <= first + 1e-6).all()
    best, ours = distribution.mode(teacher), distribution.mode(student)
    if best.is_floating_point():
        torch.testing.assert_close(ours, best.expand_as(ours), atol=0.05, rtol=0.0)
    else:
        assert (ours == best).all()


def test_cross_entropies_are_expectations_of_log_probabilities() -> None:
    distribution = Categorical(3)
    t, s = drawn(distribution, 3, 5), drawn(distribution, 4, 5)
    p, q = t.softmax(-1), s.softmax(-1)
    torch.testing.assert_close(TERMS["cross_entropy"](distribution, t, s), -(p * q.log()).sum(-1))
    torch.testing.assert_close(TERMS["expected_entropy"](distribution, t, s), -(q * p.log()).sum(-1))
    gaussian = DiagGaussian(1)
    t, s = torch.tensor([0.3, -0.2]), torch.tensor([-0.4, 0.1])
    draws = gaussian.sample(t.expand(200_000, 2), torch.Generator().manual_seed(0))
    expected = -gaussian.log_prob(s, draws).mean()
    torch.testing.assert_close(TERMS["cross_entropy"](gaussian, t, s), expected, atol=0.01, rtol=0.0)


def test_jensen_shannon_is_between_the_two_and_their_mixture() -> None:
    distribution, weight = Categorical(4), 0.3
    t, s = drawn(distribution, 5, 7), drawn(distribution, 6, 7)
    p, q = TorchCategorical(logits=t), TorchCategorical(logits=s)
    m = TorchCategorical(probs=weight * p.probs + (1 - weight) * q.probs)
    expected = weight * kl_divergence(p, m) + (1 - weight) * kl_divergence(q, m)
    torch.testing.assert_close(jensen_shannon(distribution, t, s, weight), expected)
    far = torch.tensor([[50.0, 0.0, 0.0, 0.0]])
    assert float(jensen_shannon(distribution, far, far.flip(-1))) == pytest.approx(0.6931, abs=1e-3)


def test_regressions_see_what_a_softmax_sees() -> None:
    distribution = Categorical(3)
    t = drawn(distribution, 7, 4)
    for kind in ("mse", "huber"):
        assert TERMS[kind](distribution, t, t + 3.0).abs().max() < 1e-10
    far = torch.tensor([[9.0, 0.0, 0.0]])
    assert TERMS["huber"](distribution, far, torch.zeros(1, 3)) < TERMS["mse"](distribution, far, torch.zeros(1, 3))
    gaussian = DiagGaussian(1)
    assert float(TERMS["mse"](gaussian, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 5.0]))) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_masked_actions_add_nothing_and_have_no_gradient(kind, alpha) -> None:
    """The same loss as among the two actions that are left."""
    free, forbidden = Categorical(2), Categorical(3)
    t, s = drawn(free, 8, 4), drawn(free, 9, 2, 4)
    wide_t = torch.cat([t, torch.full((4, 1), -torch.inf)], -1)
    wide_s = torch.cat([s, torch.full((2, 4, 1), 5.0)], -1)
    value, slope = Loss(kind, masked=True, alpha=alpha).with_gradient(forbidden, wide_t, wide_s)
    expected, expected_slope = Loss(kind, alpha=alpha).with_gradient(free, t, s)
    scale = 1.5 if kind in ("mse", "huber") and alpha == 1.0 else None  # a mean over three numbers, not two
    if scale:
        value, slope = value * scale, slope * scale
    if scale or kind not in ("mse", "huber"):
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(slope[..., :2], expected_slope)
    assert torch.isfinite(value).all() and (slope[..., 2] == 0).all()


def test_hard_targets_are_the_teachers_action() -> None:
    distribution = Categorical(3)
    t, s = drawn(distribution, 10, 5), drawn(distribution, 11, 2, 5)
    hard = -s.log_softmax(-1).gather(-1, t.argmax(-1).expand(2, 5).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(Loss(alpha=0.0)(distribution, t, s), hard)
    soft = Loss()(distribution, t, s)
    torch.testing.assert_close(Loss(alpha=0.25)(distribution, t, s), 0.25 * soft + 0.75 * hard)
    drawn_ones = torch.tensor([0.0, 1, 2, 0, 1])
    sampled = Loss(alpha=0.0, hard="sample")(distribution, torch.cat([t, drawn_ones[:, None]], -1), s)
    torch.testing.assert_close(sampled, -s.log_softmax(-1)[:, torch.arange(5), drawn_ones.long()])
    gaussian = DiagGaussian(2)
    t, s = drawn(gaussian, 12, 5), drawn(gaussian, 13, 5)
    normal = Normal(s[..., :2], s[..., 2:].exp())
    expected = -normal.log_prob(t[..., :2]).sum(-1)
    torch.testing.assert_close(Loss(alpha=0.0)(gaussian, t, s), expected)


@pytest.mark.parametrize("convention", ["hinton", "rusu"])
def test_each_member_has_its_own_temperature_and_share(convention) -> None:
    for distribution in (Categorical(3), DiagGaussian(2)):
        t, s = drawn(distribution, 14, 5), drawn(distribution, 15, 3, 5)
        family = Loss("forward_kl", (1.0, 2.0, 4.0), convention, alpha=(1.0, 0.5, 0.0))
        value, slope = family.with_gradient(distribution, t, s)
        for member in range(3):
            temperature, alpha = family.of(member)
            alone = Loss("forward_kl", temperature, convention, alpha=alpha)
            expected, expected_slope = alone.with_gradient(distribution, t, s[member : member + 1])
            torch.testing.assert_close(value[member : member + 1], expected)
            torch.testing.assert_close(slope[member : member + 1], expected_slope)
        assert family.among([2, 0]).of(0) == (4.0, 0.0)
