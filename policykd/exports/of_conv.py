"""The layers of a student with convolutions: what `policykd.students.encoders` says, with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policykd.exports.layers import (
    Activate,
    ChannelsFirst,
    Conv,
    Dense,
    Floats,
    Normalise,
    Parallel,
    Residual,
    Stateless,
)
from policykd.students import steps
from policykd.students.conv import ConvStudent
from policykd.students.encoders import Encoder
from policykd.students.spec import Activation

Weights = Mapping[str, Floats]


def layers_of(student: ConvStudent) -> list[Stateless]:
    """An encoder for each entry of the observation side by side, where there are several; then the dense layers."""
    plan, weights = student.plan, {name: part.cpu().numpy() for name, part in student.parts.items()}
    parts, begin = [], 0
    for encoder in plan.encoders:
        end = begin + encoder.constants
        mean, scale = student.normaliser.mean[begin:end], student.normaliser.scale[begin:end]
        seen = _seen(encoder, mean, scale, float(student.normaliser.limit))
        parts.append((encoder.begin, encoder.end, (*seen, *_walked(encoder.steps, weights, plan.activation))))
        begin = end
    first = list(parts[0][2]) if len(parts) == 1 else [Parallel(tuple(parts))]
    return [*first, *_walked(plan.tail, weights, plan.activation)]


def _seen(encoder: Encoder, mean: Floats, scale: Floats, limit: float) -> list[Stateless]:
    """Its features normalised, an image with its channels first."""
    if encoder.image is None:
        return [Normalise(mean, scale, limit)]
    height, width, _ = encoder.image
    turned = [ChannelsFirst(*encoder.image)] if encoder.channels_last else []
    return [*turned, Normalise(mean, scale, limit, repeat=height * width)]


def _walked(walk: Sequence[steps.Step], weights: Weights, activation: Activation) -> list[Stateless]:
    found: list[Stateless] = []
    for step in walk:
        if isinstance(step, steps.Activate):
            found.append(Activate(activation))
        elif isinstance(step, steps.Residual):
            found.append(Residual(tuple(_walked(step.steps, weights, activation))))
        else:
            weight, bias = weights[f"{step.name}.weight"], weights[f"{step.name}.bias"]
            if isinstance(step, steps.Dense):
                found.append(Dense(weight, bias))
            else:
                found.append(Conv(weight, bias, step.stride, step.padding, step.height, step.width))
    return found
