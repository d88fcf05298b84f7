"""Structured pruning: hidden units that matter least are removed, so that layers really get smaller.

How much a unit matters is measured on labelled states, h [B] its values there:

  taylor    mean over states of (dL/dh (h - mean h))^2, the first-order change of the loss L where the unit stays at
            its mean (Molchanov et al. 2019, arXiv:1906.10771, with a gate for each unit; there it is set to zero).
  variance  var(h) |w|^2, w [out] its weights on the way out: what its mean does not replace (Sietsma and Dow 1988).

A removed unit's mean, times its weights on the way out, goes into the next layer's biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.loss.losses import Loss
from policykd.students.spec import Activation
from policykd.students.student import with_log_std
from policykd.students.transplant import Layers

Criterion = Literal["taylor", "variance"]
_MOST = 20_000  # states that are looked at


@dataclass(frozen=True, eq=False)
class Labelled:
    """States that a teacher has labelled: normalised `inputs` [B, O], `params` [B, P], and what a student loses."""

    inputs: Tensor
    params: Tensor
    distribution: Distribution
    loss: Loss

    def part(self) -> Labelled:
        """At most 20,000 of them, spread evenly."""
        step = -(-len(self.inputs) // _MOST)
        return Labelled(self.inputs[::step], self.params[::step], self.distribution, self.loss)


@dataclass(frozen=True, eq=False)
class Net:
    """An MLP by its layers; `log_std` [A] or empty."""

    layers: Layers
    log_std: Tensor
    activation: Activation

    def run(self, inputs: Tensor) -> list[Tensor]:
        """What goes into each layer, [B, in] each, then the outputs [B, M]."""
        found = [inputs]
        for weight, bias in self.layers[:-1]:
            x = torch.addmm(bias, found[-1], weight)
            found.append(torch.tanh(x) if self.activation == "tanh" else torch.relu(x))
        return [*found, torch.addmm(self.layers[-1][1], found[-1], self.layers[-1][0])]


@torch.no_grad()
def pruned(net: Net, width: int, seen: Labelled, criterion: Criterion) -> Layers:
    """The layers with at most `width` units each; ties go to the unit that stands first."""
    seen = seen.part()
    values = net.run(seen.inputs)
    scores = taylor_scores(net, seen, values) if criterion == "taylor" else variance_scores(net, values)
    layers = list(net.layers)
    for k, score in enumerate(scores):
        order = score.argsort(descending=True, stable=True)
        keep, gone = order[:width].sort().values, order[width:]
        weight, bias = layers[k]
        layers[k] = weight[:, keep], bias[keep]
        weight, bias = layers[k + 1]
        layers[k + 1] = weight[keep], bias + values[k + 1].mean(0)[gone] @ weight[gone]
    return tuple(layers)


def variance_scores(net: Net, values: list[Tensor]) -> list[Tensor]:
    """[units] of each hidden layer; `values` are what `Net.run` gives."""
    pairs = zip(values[1:-1], net.layers[1:], strict=True)
    return [h.var(0, correction=0) * weight.square().sum(1) for h, (weight, _) in pairs]


def taylor_scores(net: Net, seen: Labelled, values: list[Tensor]) -> list[Tensor]:
    """The same by the loss on labelled states."""
    means = values[-1]
    params = with_log_std(means, net.log_std)
    _, slope = seen.loss.with_gradient(seen.distribution, seen.params, params[None])
    delta, found = slope[0, :, : means.shape[1]], list[Tensor]()
    for k in reversed(range(1, len(net.layers))):
        h, slope_of_h = values[k], delta @ net.layers[k][0].T
        found.insert(0, (slope_of_h * (h - h.mean(0))).square().mean(0))
        delta = slope_of_h * (1 - h * h if net.activation == "tanh" else (h > 0).float())
    return found
