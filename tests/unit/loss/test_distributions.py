"""Fails when a formula departs from torch.distributions or from numerical integration, when leading dimensions do not
broadcast, or when a masked action turns a value or a gradient into NaN."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor
from torch import distributions as td

from policykd.loss.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    SquashedDiagGaussian,
    distribution_from_json,
    is_gaussian,
)
from policykd.spine.errors import InputError

ALL: dict[str, Distribution] = {
    "categorical": Categorical(5),
    "multi": MultiCategorical((2, 4, 3)),
    "bernoulli": Bernoulli(3),
    "gaussian": DiagGaussian(3),
    "squashed": SquashedDiagGaussian(2),
}
DISCRETE = ["categorical", "multi", "bernoulli"]
INF = math.inf


def params_of(distribution: Distribution, *leading: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = 0.6 if is_gaussian(distribution) else 2.0
    return scale * torch.randn(*leading, distribution.n_params, generator=generator, dtype=torch.float64)


def torch_parts(distribution: Distribution, params: Tensor) -> list[Any]:
    """The same distribution(s) from torch: KL, entropy and log_prob are sums over the list."""
    match distribution:
        case Categorical():
            return [td.Categorical(logits=params)]
        case MultiCategorical(nvec):
            return [td.Categorical(logits=part) for part in params.split(nvec, -1)]
        case Bernoulli():
            return [td.Independent(td.Bernoulli(logits=params), 1)]
        case DiagGaussian(dim) | SquashedDiagGaussian(dim):
            mean, log_std = params.split(dim, -1)
            return [td.Independent(td.Normal(mean, log_std.exp()), 1)]
    raise AssertionError(distribution)


@pytest.fixture(params=ALL)
def distribution(request: pytest.FixtureRequest) -> Distribution:
    return ALL[request.param]


def test_kl_entropy_against_torch(distribution: Distribution) -> None:
    p, q = params_of(distribution, 50), params_of(distribution, 50, seed=1)
    pairs = zip(torch_parts(distribution, p), torch_parts(distribution, q), strict=True)
    torch.testing.assert_close(distribution.kl(p, q), sum(td.kl_divergence(a, b) for a, b in pairs))
    torch.testing.assert_close(distribution.entropy(p), sum(part.entropy() for part in torch_parts(distribution, p)))


@pytest.mark.parametrize("name", DISCRETE)
def test_log_prob_against_torch(name: str) -> None:
    distribution = ALL[name]
    p = params_of(distribution, 40)
    action = distribution.sample(p, torch.Generator().manual_seed(3))
    parts = torch_parts(distribution, p)
    values = action.unbind(-1) if name == "multi" else [action.double() if name == "bernoulli" else action]
    expected = sum(part.log_prob(value) for part, value in zip(parts, values, strict=True))
    torch.testing.assert_close(distribution.log_prob(p, action), expected)


def test_gaussian_log_prob_against_torch() -> None:
    distribution = ALL["gaussian"]
    p = params_of(distribution, 40)
    action = torch.randn(40, 3, dtype=torch.float64)
    torch.testing.assert_close(distribution.log_prob(p, action), torch_parts(distribution, p)[0].log_prob(action))


def test_squashed_log_prob_is_that_of_the_transformed_distribution() -> None:
    distribution = SquashedDiagGaussian(2)
    p = params_of(distribution, 100)
    mean, log_std = p.split(2, -1)
    squashed = td.Independent(td.TransformedDistribution(td.Normal(mean, log_std.exp()), td.TanhTransform()), 1)
    action = distribution.sample(p, torch.Generator().manual_seed(0))
    inside = (action.abs() < 0.99).all(-1)
    assert inside.sum() > 80
    expected = squashed.log_prob(action)
    torch.testing.assert_close(distribution.log_prob(p, action)[inside], expected[inside], rtol=0, atol=2e-4)
    assert torch.isfinite(distribution.log_prob(p.float(), torch.ones(100, 2))).all()


def density(distribution: Any, params: Tensor, x: float) -> float:
    return math.exp(float(distribution.log_prob(params, torch.tensor([x], dtype=torch.float64))))


@pytest.mark.parametrize(("kind", "low", "high"), [(DiagGaussian, -12, 12), (SquashedDiagGaussian, -0.99999, 0.99999)])
def test_gaussian_kl_is_the_integral(kind: Any, low: float, high: float) -> None:
    distribution = kind(1)
    p, q = torch.tensor([0.3, -0.4], dtype=torch.float64), torch.tensor([-0.2, 0.1], dtype=torch.float64)

    def integrand(x: float) -> float:
        a, b = density(distribution, p, x), density(distribution, q, x)
        return a * math.log(a / b) if a > 0 else 0.0

    assert quad(lambda x: density(distribution, p, x), low, high)[0] == pytest.approx(1.0, abs=1e-4)
    assert float(distribution.kl(p, q)) == pytest.approx(quad(integrand, low, high)[0], abs=1e-4)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_tempered_gaussian_is_the_normalised_power(temperature: float) -> None:
    distribution, p = DiagGaussian(1), torch.tensor([0.3, -0.4], dtype=torch.float64)
    total = quad(lambda x: density(distribution, p, x) ** (1 / temperature), -15, 15)[0]
    tempered = distribution.temper(p, temperature)
    for x in (-1.5, 0.0, 0.3, 2.0):
        power = density(distribution, p, x) ** (1 / temperature) / total
        assert density(distribution, tempered, x) == pytest.approx(power, rel=1e-6)


@pytest.mark.parametrize("name", DISCRETE)
def test_tempered_mass_is_the_normalised_power(name: str) -> None:
    distribution, temperature = ALL[name], 2.5
    p = params_of(distribution, 6)
    before, after = torch_parts(distribution, p), torch_parts(distribution, distribution.temper(p, temperature))
    for a, b in zip(before, after, strict=True):
        base = a.base_dist if name == "bernoulli" else a
        mass = torch.stack([1 - base.probs, base.probs], -1) if name == "bernoulli" else base.probs
        power = mass.pow(1 / temperature)
        power /= power.sum(-1, keepdim=True)
        found = b.base_dist.probs if name == "bernoulli" else b.probs
        torch.testing.assert_close(found, power[..., 1] if name == "bernoulli" else power)


@given(data=st.data(), name=st.sampled_from(sorted(ALL)))
@settings(max_examples=60, deadline=None)
def test_kl_is_zero_on_itself_and_never_negative(data: st.DataObject, name: str) -> None:
    distribution = ALL[name]
    numbers = st.lists(st.floats(-3, 3), min_size=distribution.n_params, max_size=distribution.n_params)
    p, q = (torch.tensor(data.draw(numbers), dtype=torch.float64) for _ in range(2))
    assert float(distribution.kl(p, p)) == 0.0
    assert float(distribution.kl(p, q)) >= -1e-12


def test_students_broadcast_against_one_teacher(distribution: Distribution) -> None:
    teacher, students = params_of(distribution, 7), params_of(distribution, 4, 7, seed=1)
    action = distribution.mode(teacher)
    forward, reverse = distribution.kl(teacher, students), distribution.kl(students, teacher)
    log_prob = distribution.log_prob(students, action)
    assert forward.shape == reverse.shape == log_prob.shape == distribution.entropy(students).shape == (4, 7)
    tempered = distribution.temper(students, torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64).view(4, 1, 1))
    for s in range(4):
        torch.testing.assert_close(forward[s], distribution.kl(teacher, students[s]))
        torch.testing.assert_close(reverse[s], distribution.kl(students[s], teacher))
        torch.testing.assert_close(log_prob[s], distribution.log_prob(students[s], action))
        torch.testing.assert_close(tempered[s], distribution.temper(students[s], [0.5, 1.0, 2.0, 4.0][s]))


def test_one_student_takes_the_actions_of_many(distribution: Distribution) -> None:
    p, action = params_of(distribution, 7), distribution.mode(params_of(distribution, 4, 7, seed=1))
    together = distribution.log_prob(p, action)
    torch.testing.assert_close(together, torch.stack([distribution.log_prob(p, action[s]) for s in range(4)]))


MASKED = {
    "categorical": ([1.0, -INF, 0.5, -INF, 0.0], [0.0, -INF, 2.0, -INF, 1.0]),
    "multi": ([0.0, -INF, 1.0, 2.0, -INF, 0.0, 0.0, 1.0, 2.0], [1.0, -INF, 0.0, 2.0, -INF, 0.0, 1.0, 1.0, 0.0]),
    "bernoulli": ([1.0, -INF, INF], [0.5, -INF, INF]),
}


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("learner", ["p", "q"])
def test_masked_actions_give_no_nan(name: str, learner: str) -> None:
    distribution = ALL[name]
    p, q = (torch.tensor(values, dtype=torch.float64) for values in MASKED[name])
    free = [torch.isfinite(p), torch.isfinite(q)]
    wanted = p if learner == "p" else q
    wanted.requires_grad_()
    kl = distribution.kl(p, q)
    kl.backward()
    assert torch.isfinite(kl) and kl.item() > 0
    assert wanted.grad is not None and torch.isfinite(wanted.grad).all()
    assert wanted.grad[~free[0]].abs().sum() == 0
    assert wanted.grad[free[0]].abs().sum() > 0
    wanted.grad = None
    entropy, log_prob = distribution.entropy(wanted), distribution.log_prob(wanted, distribution.mode(wanted))
    (entropy + log_prob).backward()
    assert torch.isfinite(entropy) and torch.isfinite(log_prob) and torch.isfinite(wanted.grad).all()


def test_masked_kl_and_entropy_are_those_of_the_actions_left() -> None:
    p, q = (torch.tensor(values, dtype=torch.float64) for values in MASKED["categorical"])
    left = [0, 2, 4]
    torch.testing.assert_close(Categorical(5).kl(p, q), Categorical(3).kl(p[left], q[left]))
    torch.testing.assert_close(Categorical(5).entropy(p), Categorical(3).entropy(p[left]))
    assert float(Categorical(2).kl(torch.tensor([0.0, 0.0]), torch.tensor([0.0, -INF]))) == INF


@pytest.mark.parametrize("name", DISCRETE)
def test_sampling_frequencies_and_masks(name: str) -> None:
    distribution = ALL[name]
    p = params_of(distribution, 1).float()[0]
    samples = distribution.sample(p.expand(40_000, -1), torch.Generator().manual_seed(0))
    if name == "bernoulli":
        torch.testing.assert_close(samples.double().mean(0), torch.sigmoid(p).double(), atol=0.015, rtol=0)
    parts = torch_parts(distribution, p)
    for k, part in enumerate(parts if name != "bernoulli" else []):
        drawn = samples[:, k] if name == "multi" else samples
        found = torch.bincount(drawn, minlength=part.probs.shape[-1]) / len(drawn)
        torch.testing.assert_close(found, part.probs, atol=0.015, rtol=0)
    masked = torch.tensor(MASKED[name][0])
    drawn = distribution.sample(masked.expand(2000, -1), torch.Generator().manual_seed(1))
    assert torch.isfinite(distribution.log_prob(masked.expand(2000, -1), drawn)).all()


@pytest.mark.parametrize("name", ["gaussian", "squashed"])
def test_gaussian_samples_have_the_moments(name: str) -> None:
    distribution = ALL[name]
    p = params_of(distribution, 1)[0]
    samples = distribution.sample(p.expand(40_000, -1), torch.Generator().manual_seed(0))
    if name == "squashed":
        assert samples.abs().max() <= 1
        samples = torch.atanh(samples.clamp(-1 + 1e-12, 1 - 1e-12))
    mean, log_std = p.chunk(2)
    torch.testing.assert_close(samples.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(samples.std(0), log_std.exp(), atol=0, rtol=0.03)


def test_samples_follow_the_generator(distribution: Distribution) -> None:
    p = params_of(distribution, 64)
    first, again, other = (distribution.sample(p, torch.Generator().manual_seed(k)) for k in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == distribution.mode(p).shape


def test_mode_is_the_likeliest() -> None:
    p = params_of(ALL["categorical"], 20)
    assert torch.equal(ALL["categorical"].mode(p), p.argmax(-1))
    p = params_of(ALL["multi"], 20)
    expected = torch.stack([part.probs.argmax(-1) for part in torch_parts(ALL["multi"], p)], -1)
    assert torch.equal(ALL["multi"].mode(p), expected)
    p = params_of(ALL["bernoulli"], 20)
    assert torch.equal(ALL["bernoulli"].mode(p), (torch.sigmoid(p) > 0.5).long())
    p = params_of(ALL["gaussian"], 20)
    assert torch.equal(ALL["gaussian"].mode(p), p[:, :3])
    p = params_of(ALL["squashed"], 20)
    assert torch.equal(ALL["squashed"].mode(p), torch.tanh(p[:, :2]))


def test_json_round_trip(distribution: Distribution) -> None:
    assert distribution_from_json(json.loads(json.dumps(distribution.to_json()))) == distribution
    assert distribution.n_means == distribution.n_params / (2 if is_gaussian(distribution) else 1)


def test_unknown_json_is_refused() -> None:
    with pytest.raises(InputError, match="Poisson"):
        distribution_from_json({"type": "Poisson"})


def test_extreme_logits_stay_finite() -> None:
    for distribution in (Categorical(2), Bernoulli(2)):
        p = torch.tensor([300.0, -300.0], requires_grad=True)
        kl = distribution.kl(p, -p.detach())
        kl.backward()
        assert torch.isfinite(kl) and np.isfinite(p.grad.numpy()).all()
