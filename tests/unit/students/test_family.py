"""Fails when the hand-written backward pass, the padding, the grouping or a footprint is wrong: members must learn as
if each were alone."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.learn.updates.update import Learner
from policykd.loss.distributions import Categorical, DiagGaussian, Distribution
from policykd.loss.losses import Loss, forward_kl
from policykd.spine.config.data import UpdateConfig
from policykd.spine.seeding import SeedKey
from policykd.students import family as module
from policykd.students.family import Family, fast_tanh_, plan_groups
from policykd.students.spec import MemberSpec
from tests.support.core import Quiet

N_INPUTS = 3
SPECS = [
    MemberSpec(0, 0),
    MemberSpec(0, 0, 1),
    MemberSpec(1, 4),
    MemberSpec(1, 9),
    MemberSpec(2, 3),
    MemberSpec(2, 8),
    MemberSpec(2, 8, 1),
    MemberSpec(3, 5),
    MemberSpec(3, 2),
]
DISTRIBUTIONS = [Categorical(4), DiagGaussian(2)]


def labelled(distribution: Distribution, n: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, N_INPUTS, generator=generator)
    weights = torch.randn(N_INPUTS, distribution.n_params, generator=generator)
    return inputs, torch.tanh(inputs @ weights)


def alone(family: Family, index: int, inputs: Tensor, leaves: list[Tensor]) -> Tensor:
    """Member `index` written with torch's own layers, on `leaves`: weight, bias, ..., log_std."""
    x = inputs
    *layers, log_std = leaves
    for k in range(0, len(layers), 2):
        x = x @ layers[k] + layers[k + 1]
        if k + 2 < len(layers):
            x = torch.tanh(x) if family.activation == "tanh" else torch.relu(x)
    return torch.cat([x, log_std.expand(len(x), -1)], -1)


def leaves_of(family: Family, index: int) -> list[Tensor]:
    flat = [tensor for pair in family.member_layers(index) for tensor in pair]
    return [tensor.requires_grad_() for tensor in (*flat, family.member_log_std(index))]


def grads_of(family: Family, index: int) -> list[Tensor]:
    """The member's gradients, read by swapping values and gradients."""
    values = family.flat.clone()
    family.flat.copy_(family.grad)
    result = [tensor for pair in family.member_layers(index) for tensor in pair] + [family.member_log_std(index)]
    family.flat.copy_(values)
    return result


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=["categorical", "gaussian"])
def test_backward_against_autograd(activation: Any, distribution: Distribution) -> None:
    family = Family(SPECS, N_INPUTS, distribution, activation=activation)
    family.log_std.uniform_(-1, 0)
    for index in range(len(family)):
        group, row = next(
            (g, index - g.members.start) for g in family.groups if g.members.start <= index < g.members.stop
        )
        for bias, (_, width) in zip(group.biases, family.specs[index].sizes(N_INPUTS, family.n_means), strict=True):
            bias[row, 0, :width].uniform_(-0.5, 0.5)
    inputs, teacher = labelled(distribution, 32)
    saved: list[list[Tensor]] = []
    params = family.forward_saving(inputs, saved).requires_grad_()
    (d_params,) = torch.autograd.grad(forward_kl(distribution, teacher, params).mean(-1).sum(), params)
    family.backward(d_params, saved)
    norms = family.member_grad_norms()
    for index in range(len(family)):
        leaves = leaves_of(family, index)
        own = alone(family, index, inputs, leaves)
        torch.testing.assert_close(params[index], own, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(family.forward(inputs)[index], own, rtol=1e-5, atol=1e-5)
        forward_kl(distribution, teacher, own).mean().backward()
        expected = [torch.zeros(0) if leaf.grad is None else leaf.grad for leaf in leaves]
        for found, grad in zip(grads_of(family, index), expected, strict=True):
            torch.testing.assert_close(found, grad, rtol=1e-4, atol=1e-6)
        total = torch.cat([grad.flatten() for grad in expected]).norm()
        torch.testing.assert_close(norms[index], total, rtol=1e-4, atol=1e-6)


def test_inputs_of_its_own_for_each_member() -> None:
    family = Family(SPECS, N_INPUTS, DiagGaussian(2))
    inputs = torch.randn(len(SPECS), 7, N_INPUTS)
    together = family.forward(inputs)
    for index in range(len(SPECS)):
        torch.testing.assert_close(together[index], family.forward(inputs[index])[index])


def test_scaling_touches_each_member_alone() -> None:
    family = Family(SPECS, N_INPUTS, DiagGaussian(2))
    family.grad.normal_()
    before = [[tensor.clone() for tensor in grads_of(family, index)] for index in range(len(SPECS))]
    factors = torch.arange(1.0, len(SPECS) + 1)
    family.scale_member_grads(factors)
    for index, tensors in enumerate(before):
        for old, new in zip(tensors, grads_of(family, index), strict=True):
            torch.testing.assert_close(new, old * factors[index])


def padding_of(family: Family) -> Tensor:
    """Every number of the flat vector that belongs to no member."""
    values = family.flat.clone()
    family.log_std.zero_()
    for index in range(len(family)):
        group, row = next(
            (g, index - g.members.start) for g in family.groups if g.members.start <= index < g.members.stop
        )
        sizes = family.specs[index].sizes(family.n_inputs, family.n_means)
        for weight, bias, (i, o) in zip(group.weights, group.biases, sizes, strict=True):
            weight[row, :i, :o] = 0
            bias[row, :, :o] = 0
    rest = family.flat.clone()
    family.flat.copy_(values)
    return rest


def train(family: Family, *, n_updates: int = 60, clip: float | None = None) -> Family:
    inputs, teacher = labelled(family.distribution)
    dataset = Dataset(N_INPUTS, family.distribution.n_params, 1000, "cpu")
    dataset.append(inputs, teacher)
    config = UpdateConfig(n_updates=n_updates, batch_size=32, max_grad_norm=clip)
    Learner(family, Loss(), config, 1).fit(dataset, 0, SeedKey(0, "update"), Quiet())
    return family


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=["categorical", "gaussian"])
def test_padding_stays_zero_while_training(activation: Any, distribution: Distribution) -> None:
    family = Family(SPECS, N_INPUTS, distribution, activation=activation)
    n_padding = family.flat.numel() - sum(s.footprint(N_INPUTS, family.n_means).params for s in SPECS)
    n_padding -= family.log_std.numel()
    assert n_padding > 0, "nothing is padded: the test shows nothing"
    before = family.flat.clone()
    train(family)
    assert not torch.equal(before, family.flat)
    assert padding_of(family).count_nonzero() == 0


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=["categorical", "gaussian"])
def test_a_member_learns_what_it_learns_alone(clip: float | None, distribution: Distribution) -> None:
    together = train(Family(SPECS, N_INPUTS, distribution, root_seed=4), clip=clip)
    for index, spec in enumerate(together.specs):
        single = train(Family([spec], N_INPUTS, distribution, root_seed=4), clip=clip)
        pairs = zip(together.member_layers(index), single.member_layers(0), strict=True)
        for (weight, bias), (own_weight, own_bias) in pairs:
            torch.testing.assert_close(weight, own_weight, rtol=1e-3, atol=2e-4)
            torch.testing.assert_close(bias, own_bias, rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(together.member_log_std(index), single.member_log_std(0), rtol=1e-3, atol=2e-4)


def test_initial_weights_depend_on_architecture_seed_and_root_only() -> None:
    first = Family([MemberSpec(2, 8), MemberSpec(2, 8, 1)], N_INPUTS, Categorical(2), root_seed=1)
    other = Family([MemberSpec(1, 4), MemberSpec(2, 8)], N_INPUTS, Categorical(2), root_seed=1)
    moved = Family([MemberSpec(2, 8)], N_INPUTS, Categorical(2), root_seed=2)
    assert torch.equal(first.member_layers(0)[1][0], other.member_layers(1)[1][0])
    assert not torch.equal(first.member_layers(0)[1][0], first.member_layers(1)[1][0])
    assert not torch.equal(first.member_layers(0)[1][0], moved.member_layers(0)[1][0])


SPEC = st.builds(MemberSpec, st.integers(0, 3), st.integers(1, 64), st.integers(0, 1))


def cost(specs: list[MemberSpec], groups: list[slice]) -> float:
    total = 0
    for g in groups:
        widest = max(s.footprint(5, 3).macs for s in specs[g])
        total += module._GROUP_OVERHEAD_MACS + (g.stop - g.start) * widest
    return total


@given(st.lists(SPEC, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_plan_is_a_cheapest_cut(specs: list[MemberSpec]) -> None:
    specs = sorted(specs)
    n = len(specs)
    plan = plan_groups(specs, 5, 3)
    assert [i for g in plan for i in range(g.start, g.stop)] == list(range(n))
    assert all(len({s.depth for s in specs[g]}) == 1 for g in plan)
    options = []
    for count in range(n):
        for cuts in combinations(range(1, n), count):
            ends = [0, *cuts, n]
            groups = [slice(a, b) for a, b in pairwise(ends)]
            if all(len({s.depth for s in specs[g]}) == 1 for g in groups):
                options.append(cost(specs, groups))
    assert cost(specs, plan) == min(options)


@given(st.lists(SPEC, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_members_have_the_size_they_claim(specs: list[MemberSpec]) -> None:
    family = Family(specs, N_INPUTS, DiagGaussian(2))
    assert list(family.specs) == sorted(specs)
    for index, spec in enumerate(family.specs):
        layers = family.member_layers(index)
        widths = [N_INPUTS, *[spec.width] * spec.depth, 2]
        assert [tuple(w.shape) for w, _ in layers] == list(pairwise(widths))
        assert [tuple(b.shape) for _, b in layers] == [(o,) for o in widths[1:]]
        assert family.member_log_std(index).shape == (2,)
        size = spec.footprint(N_INPUTS, 2)
        assert size.params == sum(w.numel() + b.numel() for w, b in layers)
        assert size.macs == sum(w.numel() for w, _ in layers)
        assert size.constants == 2 * N_INPUTS
    family.member_layers(0)[0][0].fill_(9)
    assert not (family.flat == 9).any(), "member_layers must give copies"


def test_fast_tanh() -> None:
    x = torch.linspace(-20, 20, 4001)
    torch.testing.assert_close(fast_tanh_(x.clone()), torch.tanh(x), rtol=0, atol=2e-7)
    assert fast_tanh_(torch.zeros(3)).count_nonzero() == 0
