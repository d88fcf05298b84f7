"""Fails when a unit that does nothing stays while one that matters goes, when a removed unit's mean is lost, or when
the scores are not those of the loss's gradient."""

from __future__ import annotations

import itertools

import pytest
import torch

from policykd.compress.prune import Labelled, Net, pruned, taylor_scores
from policykd.loss.distributions import DiagGaussian
from policykd.loss.losses import Loss
from policykd.students.transplant import Layers

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(400, 3, generator=GENERATOR)


def net(hidden: tuple[int, ...] = (6, 5), activation: str = "tanh") -> Net:
    generator = torch.Generator().manual_seed(1)
    sizes = [3, *hidden, 2]
    layers = tuple(
        (torch.randn(i, o, generator=generator), torch.randn(o, generator=generator))
        for i, o in itertools.pairwise(sizes)
    )
    return Net(layers, torch.zeros(2), activation)  # type: ignore[arg-type]


def labelled(own: Net) -> Labelled:
    """A teacher near the net, as one that it was distilled from."""
    means = own.run(INPUTS)[-1] + 0.1 * torch.randn(len(INPUTS), 2, generator=torch.Generator().manual_seed(2))
    return Labelled(INPUTS, torch.cat([means, torch.zeros_like(means)], 1), DiagGaussian(2), Loss())


def outputs(own: Net, layers: Layers) -> torch.Tensor:
    return Net(layers, own.log_std, own.activation).run(INPUTS)[-1]


@pytest.mark.parametrize("criterion", ["taylor", "variance"])
def test_units_that_do_nothing_are_removed_and_nothing_changes(criterion) -> None:
    own = net()
    (first, bias), (second, _), _ = own.layers
    first[:, 1], bias[1] = 0.0, 0.7  # always tanh(0.7), which the next layer feels
    second[4] = 0.0  # heard by nobody
    layers = pruned(own, 4, labelled(own), criterion)
    assert [tuple(weight.shape) for weight, _ in layers] == [(3, 4), (4, 4), (4, 2)]
    (kept, _), *_ = layers
    assert torch.equal(kept, first[:, [0, 2, 3, 5]])
    only_first = pruned(Net(own.layers[:2], torch.zeros(5), "tanh"), 4, Labelled(
        INPUTS, torch.cat([own.run(INPUTS)[2].atanh(), torch.zeros(len(INPUTS), 5)], 1), DiagGaussian(5), Loss()
    ), criterion)  # fmt: skip
    expected = Net(own.layers[:2], own.log_std, "tanh").run(INPUTS)[-1]
    assert torch.allclose(outputs(own, only_first), expected, atol=1e-5)


@pytest.mark.parametrize("criterion", ["taylor", "variance"])
def test_what_is_removed_by_score_costs_less_than_what_is_removed_by_chance(criterion) -> None:
    own, chance = net((12, 12)), []
    whole = own.run(INPUTS)[-1]
    error = float((outputs(own, pruned(own, 8, labelled(own), criterion)) - whole).square().mean())
    for seed in range(9):
        order = [torch.randperm(12, generator=torch.Generator().manual_seed(seed + k)) for k in (0, 100)]
        mixed = list(own.layers)
        for k, keep in enumerate(order):
            values = own.run(INPUTS)[k + 1].mean(0)
            (a, b), (c, d) = mixed[k], mixed[k + 1]
            mixed[k] = a[:, keep[:8]], b[keep[:8]]
            mixed[k + 1] = c[keep[:8]], d + values[keep[8:]] @ c[keep[8:]]
        chance.append(float((outputs(own, tuple(mixed)) - whole).square().mean()))
    assert error < sorted(chance)[4]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_scores_are_those_of_a_gate_in_front_of_each_unit(activation) -> None:
    own = net(activation=activation)
    seen = labelled(own)
    values = own.run(INPUTS)
    scores = taylor_scores(own, seen, values)
    for k in (0, 1):
        gates = torch.ones_like(values[k + 1]).requires_grad_()
        mean = values[k + 1].mean(0)
        h = mean + gates * (values[k + 1] - mean)
        means = Net(own.layers[k + 1 :], own.log_std, own.activation).run(h)[-1]
        loss = Loss()(seen.distribution, seen.params, torch.cat([means, torch.zeros_like(means)], 1)[None])
        loss.sum().backward()
        assert torch.allclose(scores[k], gates.grad.square().mean(0), rtol=1e-4)  # type: ignore[union-attr]
