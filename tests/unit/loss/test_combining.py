"""Fails when a pool of distributions is not the one its formula says."""

from __future__ import annotations

import pytest
import torch

from policykd.loss.combining import affine, chosen, mixture, product, unsquashed
from policykd.loss.distributions import Bernoulli, Categorical, DiagGaussian, MultiCategorical, SquashedDiagGaussian

W = torch.tensor([0.3, 0.7])


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_mixture_of_choices_is_the_mean_of_the_probabilities() -> None:
    logits = drawn(2, 5, 4)
    expected = (W.view(-1, 1, 1) * logits.softmax(-1)).sum(0)
    assert torch.allclose(mixture(Categorical(4), logits, W).softmax(-1), expected, atol=1e-6)


def test_a_product_of_choices_is_the_geometric_mean() -> None:
    logits = drawn(2, 5, 4)
    expected = logits.softmax(-1).pow(W.view(-1, 1, 1)).prod(0)
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(product(Categorical(4), logits, W).softmax(-1), expected, atol=1e-6)


@pytest.mark.parametrize("pool", [mixture, product])
def test_branches_and_bits_are_pooled_one_by_one(pool) -> None:
    logits = drawn(2, 5, 5)
    pooled = pool(MultiCategorical((2, 3)), logits, W)
    assert torch.allclose(pooled[:, 2:], pool(Categorical(3), logits[..., 2:], W))
    bit = pool(Bernoulli(1), logits[..., :1], W)
    pair = torch.cat([torch.zeros(2, 5, 1), logits[..., :1]], -1)  # the same bit as a choice between two
    assert torch.allclose(bit.sigmoid(), pool(Categorical(2), pair, W).softmax(-1)[:, 1:], atol=1e-6)


@pytest.mark.parametrize("pool", [mixture, product])
@pytest.mark.parametrize("distribution", [Categorical(4), DiagGaussian(2), Bernoulli(4)])
def test_equal_ones_stay_what_they_are(pool, distribution) -> None:
    params = drawn(5, 4)
    pooled = pool(distribution, torch.stack([params, params]), W)
    assert torch.allclose(distribution.kl(params, pooled), torch.zeros(5), atol=1e-5)


def test_a_mixture_of_gaussians_has_its_mean_and_variance() -> None:
    means, std = torch.tensor([[[-1.0]], [[2.0]]]), torch.tensor([[[0.5]], [[1.5]]])
    pooled = mixture(DiagGaussian(1), torch.cat([means, std.log()], -1), W)
    x = torch.linspace(-15, 15, 300_001)
    density = sum(
        w * torch.distributions.Normal(float(m), float(s)).log_prob(x).exp()
        for w, m, s in zip(W, means, std, strict=True)
    )
    mean = torch.trapezoid(density * x, x)
    variance = torch.trapezoid(density * (x - mean) ** 2, x)
    assert torch.allclose(pooled[0], torch.stack([mean, 0.5 * variance.log()]), atol=1e-4)


def test_a_product_of_gaussians_is_the_normalised_product_of_densities() -> None:
    means, std = torch.tensor([[[-1.0]], [[2.0]]]), torch.tensor([[[0.5]], [[1.5]]])
    for distribution in (DiagGaussian(1), SquashedDiagGaussian(1)):
        params = torch.cat([means, std.log()], -1)
        pooled = product(distribution, params, W)
        actions = torch.linspace(-0.9, 0.9, 7).view(7, 1)
        direct = sum(w * distribution.log_prob(p.expand(7, 2), actions) for w, p in zip(W, params, strict=True))
        rest = distribution.log_prob(pooled.expand(7, 2), actions) - direct  # the constant of normalisation
        assert torch.allclose(rest, rest[0].expand(7), atol=1e-4)


def test_weight_zero_has_no_say_though_it_excludes_an_action() -> None:
    logits = torch.stack([drawn(5, 3), torch.full((5, 3), 1.0)])
    logits[1, :, 0] = -torch.inf
    for pool in (mixture, product):
        pooled = pool(Categorical(3), logits, torch.tensor([1.0, 0.0]))
        assert torch.allclose(pooled.softmax(-1), logits[0].softmax(-1), atol=1e-6)


def test_chosen_is_the_one_of_highest_value() -> None:
    params = drawn(2, 3, 4)
    found = chosen(params, torch.tensor([[1.0, -2.0, 0.0], [0.5, -1.0, 0.0]]))
    assert torch.equal(found, torch.stack([params[0, 0], params[1, 1], params[0, 2]]))


def test_affine_maps_a_gaussian() -> None:
    params, centre, half = drawn(5, 4), torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])
    x = drawn(5, 2)
    there = DiagGaussian(2).log_prob(affine(params, centre, half), (x - centre) / half)
    assert torch.allclose(there - half.log().sum(), DiagGaussian(2).log_prob(params, x), atol=1e-4)


def test_unsquashed_acts_by_the_same_mode_and_spreads_as_wide() -> None:
    params = torch.tensor([[0.3, -0.5], [1.5, 0.2], [8.0, -3.0]])
    plain = unsquashed(params)
    assert torch.allclose(plain[:, 0], torch.tanh(params[:, 0]))
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    actions = torch.tanh(params[:, :1].T + params[:, 1:].T.exp() * noise)
    spread = (actions - plain[:, 0]).square().mean(0).sqrt()
    assert torch.allclose(plain[:2, 1].exp(), spread[:2], rtol=0.01)
    assert plain[2, 1].exp() == pytest.approx(0.01)  # at the bound nothing is certain beyond measure
