"""The features extractor of a model, from its spaces and weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from policykd.spine.errors import InputError, brief
from policykd.spine.packing import Leaf, packing_of
from policykd.spine.spaces import describe_space
from policykd.teachers.extractors import NATURE_KERNELS, NATURE_STRIDES, Extractor, Flat, NatureCnn, OneHot, Part
from policykd.teachers.modelspec import ModelSpec, UnsupportedPolicy
from policykd.teachers.tensors import mismatch, tensor

_MAX_CHOICES = 1_000_000  # one-hot features
_OWNED_BY_ACTOR = ("sac", "tqc", "td3", "ddpg", "crossq")


def extractor_of(spec: ModelSpec, prefix: str = "") -> Extractor:
    """How observations become features, by the weights below `prefix` (without one, those of the side that acts);
    InputError for spaces and extractors that are not understood."""
    prefix = prefix or _prefix(spec)
    used: set[str] = set()
    parts = [_part(spec, prefix, leaf, used) for leaf in packing_of(spec.observation_space).leaves]
    own = {key for key in spec.weights if key.startswith(prefix)}
    if own - used:
        raise UnsupportedPolicy(
            f"{spec.name}: has a features extractor of its own ({min(own - used)[:80]!r}), expected FlattenExtractor, "
            "NatureCNN or CombinedExtractor: pass the live model in Python, or --trust if you made the file"
        )
    return Extractor(tuple(parts))


def _prefix(spec: ModelSpec) -> str:
    """Where the weights of the acting side's extractor stand; one without weights stands nowhere."""
    if spec.algo in _OWNED_BY_ACTOR:
        return "actor.features_extractor."
    if spec.algo in ("dqn", "qrdqn"):
        return ("q_net." if spec.algo == "dqn" else "quantile_net.") + "features_extractor."
    own = "pi_features_extractor."  # beside `features_extractor.` of the same weights, since SB3 2.0
    return own if any(key.startswith(own) for key in spec.weights) else "features_extractor."


def _part(spec: ModelSpec, prefix: str, leaf: Leaf, used: set[str]) -> Part:
    where = f"{prefix}extractors.{leaf.path[0]}." if leaf.path else prefix
    if len(leaf.path) > 1 or (leaf.path and not isinstance(leaf.path[0], str)):
        raise _unsupported(spec, f"nested observations ({describe_space(spec.observation_space)[:80]})")
    space = _space_at(spec, leaf)
    divide = is_image(space) and bool(spec.options.get("normalize_images", True))
    if f"{where}cnn.0.weight" in spec.weights:
        return _nature(spec, where, leaf, divide=divide, used=used)
    if not leaf.nvec:
        return Flat(leaf.size, divide)
    if any(leaf.start) or len(leaf.shape) > 1:
        raise _unsupported(spec, f"observations of {describe_space(space)[:80]}")
    if leaf.n_features > _MAX_CHOICES:
        raise _unsupported(spec, f"{leaf.n_features} one-hot observations")
    return OneHot(leaf.nvec)


def _space_at(spec: ModelSpec, leaf: Leaf) -> Any:
    space = spec.observation_space
    return space[str(leaf.path[0])] if leaf.path and isinstance(space, spaces.Dict) else space


def is_image(space: Any) -> bool:
    """Whether stable-baselines3 takes the space for an image: three dimensions of uint8 from 0 to 255."""
    return (
        isinstance(space, spaces.Box)
        and len(space.shape) == 3
        and space.dtype == np.uint8
        and bool(np.all(space.low == 0) and np.all(space.high == 255))
    )


def _nature(spec: ModelSpec, where: str, leaf: Leaf, *, divide: bool, used: set[str]) -> NatureCnn:
    names = [f"{where}cnn.{position}" for position in (0, 2, 4)] + [f"{where}linear.0"]
    weights, biases = ([tensor(spec, f"{name}.{what}") for name in names] for what in ("weight", "bias"))
    used |= {f"{name}.{what}" for name in names for what in ("weight", "bias")}
    if len(leaf.shape) != 3:
        raise mismatch(spec, f"a CNN on observations of shape {leaf.shape}")
    channels, height, width = leaf.shape
    pixels = []
    for kernel, stride, weight, bias in zip(NATURE_KERNELS, NATURE_STRIDES, weights, biases, strict=False):
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        fits = weight.ndim == 4 and weight.shape[1:] == (channels, kernel, kernel) and bias.shape == weight.shape[:1]
        if not fits or height < 1 or width < 1:
            raise mismatch(spec, f"{where}cnn has a convolution {tuple(weight.shape)} for images of shape {leaf.shape}")
        channels = weight.shape[0]
        pixels.append(height * width)
    linear, bias = weights[3], biases[3]
    if linear.ndim != 2 or linear.shape[1] != channels * math.prod((height, width)) or bias.shape != linear.shape[:1]:
        raise mismatch(spec, f"{names[3]} has shape {tuple(linear.shape)} behind {channels} x {height} x {width}")
    return NatureCnn(tuple(weights[:3]), tuple(biases[:3]), linear, bias, divide, tuple(pixels))


def _unsupported(spec: ModelSpec, what: str) -> InputError:
    return InputError(
        f"{spec.name}: {brief(what)} are not supported: stable-baselines3 itself takes Box, Discrete, MultiDiscrete "
        "and MultiBinary, alone or in one Dict, all from 0; use a teacher with such observations"
    )
