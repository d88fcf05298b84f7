"""Fails when a masked action has a probability, when a mask makes a NaN in a value or a gradient, when masking changes
what is allowed, or when a state that allows nothing passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from policykd.loss.distributions import Bernoulli, Categorical, DiagGaussian, Distribution, MultiCategorical
from policykd.loss.losses import make_loss
from policykd.loss.masking import apply_mask, masked_like
from policykd.spine.errors import InputError, NumericsError
from policykd.spine.masks import as_mask, branches, masked_logits

DISTRIBUTIONS = (Categorical(5), Categorical(1), MultiCategorical((2, 4, 3)), Bernoulli(4))
N_ROWS = 6


class Case:
    """A distribution, random parameters of teacher [B, P] and two students [2, B, P], and a mask [B, n]."""

    def __init__(self, distribution: Distribution, seed: int, scale: float) -> None:
        rng = np.random.default_rng(seed)
        sizes = branches(distribution.to_json())
        allowed = rng.random((N_ROWS, sum(sizes))) < rng.uniform(0.1, 0.9)
        starts = np.cumsum((0, *sizes[:-1]))
        for start, size in zip(starts, sizes, strict=True):
            allowed[np.arange(N_ROWS), start + rng.integers(size, size=N_ROWS)] = True
        self.distribution, self.sizes, self.mask = distribution, sizes, allowed
        draw = lambda *shape: torch.from_numpy(rng.normal(0, scale, shape))  # noqa: E731
        self.p, self.q = draw(N_ROWS, distribution.n_params), draw(2, N_ROWS, distribution.n_params)
        self.generator = torch.Generator().manual_seed(seed)

    def masked(self, params: Tensor) -> Tensor:
        return apply_mask(self.distribution, params, torch.from_numpy(self.mask))

    def permits(self, actions: Tensor) -> bool:
        """Whether every action of the batch [..., B] or [..., B, A] is allowed."""
        index = actions.reshape(*actions.shape, 1) if isinstance(self.distribution, Categorical) else actions
        starts = torch.tensor(np.cumsum((0, *self.sizes[:-1])))
        mask = torch.from_numpy(self.mask).expand(*index.shape[:-1], -1)
        return bool(mask.gather(-1, index + starts).all())


cases = st.builds(Case, st.sampled_from(DISTRIBUTIONS), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0]))


@settings(max_examples=60, deadline=None)
@given(cases, st.floats(0.2, 5.0))
def test_every_function_is_finite_and_only_the_allowed_happens(case: Case, temperature: float) -> None:
    distribution, p, q = case.distribution, case.masked(case.p), case.masked(case.q)
    for params in (p, q, distribution.temper(p, temperature)):
        assert torch.isfinite(distribution.entropy(params)).all()
        assert case.permits(distribution.mode(params))
        for _ in range(5):
            action = distribution.sample(params, case.generator)
            assert case.permits(action)
            assert torch.isfinite(distribution.log_prob(params, action)).all()
    assert torch.isfinite(distribution.kl(p, q)).all()
    torch.testing.assert_close(distribution.kl(p, p), torch.zeros(N_ROWS, dtype=p.dtype))


@settings(max_examples=60, deadline=None)
@given(cases, st.sampled_from(["forward_kl", "reverse_kl"]), st.sampled_from(["hinton", "rusu", "untempered"]))
def test_losses_and_their_gradients(case: Case, kind: Any, convention: Any) -> None:
    loss = make_loss(kind, 2.0, convention, masked=True)
    labels, student = case.masked(case.p), case.q.clone().requires_grad_()
    value = loss(case.distribution, labels, student)
    value.sum().backward()
    assert torch.isfinite(value).all() and (value > -1e-9).all()
    assert student.grad is not None and torch.isfinite(student.grad).all()
    assert (student.grad[:, torch.isinf(labels)] == 0).all(), "a masked logit is not learned"
    closed, gradient = loss.with_gradient(case.distribution, labels, case.q)
    torch.testing.assert_close(closed, value.detach())
    torch.testing.assert_close(gradient, student.grad)


@settings(max_examples=30, deadline=None)
@given(cases)
def test_gradients_of_log_prob_and_entropy(case: Case) -> None:
    for function in (
        case.distribution.entropy,
        lambda x: case.distribution.log_prob(x, case.distribution.mode(x.detach())),
    ):
        params = case.q.clone().requires_grad_()
        function(case.masked(params)).sum().backward()
        assert params.grad is not None and torch.isfinite(params.grad).all()


@settings(max_examples=30, deadline=None)
@given(cases)
def test_numpy_and_torch_agree_and_a_label_holds_its_mask(case: Case) -> None:
    plain = masked_logits(case.distribution.to_json(), case.p.float().numpy(), case.mask)
    assert np.array_equal(plain, case.masked(case.p.float()).numpy())
    assert torch.equal(masked_like(case.q, case.masked(case.p)), case.masked(case.q))


def test_masked_probabilities_are_those_of_what_is_left() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    masked = apply_mask(Categorical(3), logits, torch.tensor([[True, True, False]]))
    expected = torch.cat([logits[:, :2].softmax(-1), torch.zeros(1, 1)], -1)
    torch.testing.assert_close(masked.softmax(-1), expected)
    bits = apply_mask(
        Bernoulli(4), torch.full((1, 4), 0.7), torch.tensor([[True, True, True, False, False, True, True, True]])
    )
    assert bits.tolist() == [[pytest.approx(0.7), -np.inf, np.inf, pytest.approx(0.7)]]


def test_nothing_allowed_is_refused_with_its_place() -> None:
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    mask[1, 2, 2:] = False
    with pytest.raises(NumericsError, match=r"^env X: row 1, 2 of the action mask allows nothing in choice 1 of 2"):
        apply_mask(MultiCategorical((2, 3)), torch.zeros(2, 3, 5), mask, "env X")
    with pytest.raises(NumericsError, match="choice 0 of 1"):
        apply_mask(Categorical(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool))


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected \(2, 4\) booleans"):
        as_mask(np.ones((2, 3)), (2,), (4,), "here")
    with pytest.raises(InputError, match="dtype object"):
        as_mask([None, None], (), (2,), "here")
    with pytest.raises(InputError, match="cannot be masked"):
        apply_mask(DiagGaussian(1), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
