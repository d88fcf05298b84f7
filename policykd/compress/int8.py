"""Weights as whole numbers of 8 bits: w = scale * q with q from -127 to 127, one scale for each unit of a layer.

Symmetric and per channel (Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342, section 2);
biases, observations and what lies between two layers stay float32. A layer computes (x q) scale + b.

  after   The weights are rounded, and every layer's biases take what that changes on average over labelled states:
          b' = b + mean(x w - x' w'), x' the inputs as the rounded layers below make them (bias correction of Nagel et
          al. 2019, arXiv:1906.04721, section 4.2, on states that were visited).
  aware   `quantise_` after every optimizer step: the family acts, learns and is judged with rounded weights, while the
          optimizer moves weights that are not (the straight-through estimator).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from policykd.compress.prune import Net
from policykd.students.family import Family
from policykd.students.mlp import MlpStudent

_LARGEST = 127


def scale_of(weight: Tensor) -> Tensor:
    """[..., out] the step of each unit's weights [..., in, out]: the largest becomes 127; 1 where all are 0."""
    largest = weight.abs().amax(-2)
    return torch.where(largest > 0, largest / _LARGEST, torch.ones_like(largest))


def rounded(weight: Tensor, scale: Tensor) -> Tensor:
    """The weights [..., in, out] at whole steps [..., out], float32."""
    steps = (weight / scale.unsqueeze(-2)).round_().clamp_(-_LARGEST, _LARGEST)
    return steps.mul_(scale.unsqueeze(-2))


@torch.no_grad()
def quantise_(family: Family) -> None:
    """Rounds every member's weights in place, each unit's with its own scale."""
    for group in family.groups:
        for weight in group.weights:
            weight.copy_(rounded(weight, scale_of(weight)))


@torch.no_grad()
def quantised(student: MlpStudent, inputs: Tensor | None = None) -> MlpStudent:
    """The student with weights of 8 bits; with normalised `inputs` [B, O] that it sees, biases are corrected."""
    scales = tuple(scale_of(weight) for weight, _ in student.layers)
    layers = [(rounded(weight, scale), bias) for (weight, bias), scale in zip(student.layers, scales, strict=True)]
    if inputs is not None:
        exact = Net(student.layers, student.log_std, student.activation).run(inputs)
        for k, ((weight, bias), (whole, _)) in enumerate(zip(student.layers, layers, strict=True)):
            x = Net(tuple(layers), student.log_std, student.activation).run(inputs)[k]
            layers[k] = whole, bias + (exact[k] @ weight - x @ whole).mean(0)
    return replace(student, layers=tuple(layers), scales=scales)
