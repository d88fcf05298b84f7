"""Weights out of a `ModelSpec`, checked as they are taken."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policykd.spine.errors import InputError, brief
from policykd.teachers.modelspec import ModelSpec
from policykd.teachers.networks import Dense, Renorm

MAX_LAYERS = 64
_BATCH_NORM_EPS = 0.001  # of CrossQ, as in sb3-contrib


def tensor(spec: ModelSpec, key: str) -> Tensor:
    """The weights `key` in single precision; InputError where they are missing, empty or too large for it."""
    if key not in spec.weights:
        raise mismatch(spec, f"no weights {key} in policy.pth")
    if not spec.weights[key].size:
        raise mismatch(spec, f"{key} has no numbers, and is of shape {spec.weights[key].shape}")
    with np.errstate(over="ignore"):
        single = np.array(spec.weights[key], np.float32, copy=True)
    if not np.isfinite(single).all():
        raise mismatch(spec, f"{key} has numbers beyond single precision")
    return torch.from_numpy(single)


def dense(spec: ModelSpec, prefix: str, activation: str = "identity") -> Dense:
    """The dense layer PREFIX.weight, PREFIX.bias."""
    weight = tensor(spec, f"{prefix}.weight")
    bias = tensor(spec, f"{prefix}.bias") if f"{prefix}.bias" in spec.weights else None
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise mismatch(spec, f"{prefix} is no dense layer (weight of shape {tuple(weight.shape)})")
    return Dense(weight, bias, activation)


def hidden(spec: ModelSpec, prefix: str) -> list[Dense | Renorm]:
    """The layers PREFIX.0, PREFIX.1 ... of a torch Sequential, in order; none where there are no such weights.

    A dense layer has its activation behind it, which takes a position and has no weights.
    """
    keys = [key.removeprefix(prefix + ".") for key in spec.weights if key.startswith(prefix + ".")]
    positions = {key.split(".")[0] for key in keys}
    indices = sorted(int(text) for text in positions if text.isdecimal() and len(text) < 9)
    renorms = {i for i in indices if f"{prefix}.{i}.ra_mean" in spec.weights}
    layers: list[Dense | Renorm] = []
    expected = 0
    for index in indices:
        if index != expected or len(layers) > 2 * MAX_LAYERS or len(indices) - len(renorms) > MAX_LAYERS:
            raise mismatch(spec, f"{prefix} is no plain MLP of at most {MAX_LAYERS} layers (positions {indices[:8]})")
        is_renorm = index in renorms
        where = f"{prefix}.{index}"
        layers.append(_renorm(spec, where) if is_renorm else dense(spec, where, spec.activation))
        expected = index + (1 if is_renorm else 2)
    return layers


def ended(spec: ModelSpec, layers: list[Dense | Renorm], activation: str = "identity") -> list[Dense | Renorm]:
    """The layers, with `activation` behind the last one, which must be dense."""
    last = layers[-1] if layers else None
    if not isinstance(last, Dense):
        raise mismatch(spec, "the last layer is a normalisation, expected a dense one")
    return [*layers[:-1], Dense(last.weight, last.bias, activation)]


def _renorm(spec: ModelSpec, prefix: str) -> Renorm:
    mean, var, scale, bias = (tensor(spec, f"{prefix}.{name}") for name in ("ra_mean", "ra_var", "scale", "bias"))
    epsilon = float(spec.options.get("batch_norm_eps", _BATCH_NORM_EPS))
    if mean.ndim != 1 or not (mean.shape == var.shape == scale.shape == bias.shape):
        raise mismatch(spec, f"{prefix} is no batch renormalisation (mean of shape {tuple(mean.shape)})")
    if not bool((var + epsilon > 0).all()):
        raise mismatch(spec, f"{prefix}.ra_var has negative variances")
    return Renorm(mean, var, scale, bias, epsilon)


def mismatch(spec: ModelSpec, what: str) -> InputError:
    """The file contradicts itself; `what` may repeat what it says."""
    return InputError(
        f"{spec.name}: weights and description of the {spec.algo} model differ: {brief(what, 300)}; save the model "
        "again"
    )
