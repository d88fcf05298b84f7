"""Students on every kind of observation, and batches of observations for the exports made of them."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policykd.exports.graph import Feed
from policykd.exports.of_student import split
from policykd.loss.acting import torch_ready
from policykd.spine.packing import packing_of
from policykd.spine.spaces import action_map
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from tests.support.core import FAMILIES

N = 256
WIDE = spaces.Box(np.array([-3.0, -2.0], np.float32), np.array([2.0, 4.0], np.float32))


def _box(*shape: int, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, dtype)


OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-5.0, 5.0, (3,), np.float32),
    "float64": _box(4, dtype=np.float64),
    "float16": _box(3, dtype=np.float16),
    "matrix": _box(2, 3),
    "integers": spaces.Box(-20, 300, (3,), np.int16),
    "unsigned": spaces.Box(0, 60_000, (3,), np.uint16),
    "image first": spaces.Box(0, 255, (3, 8, 9), np.uint8),
    "image last": spaces.Box(0, 255, (8, 9, 3), np.uint8),
    "discrete": spaces.Discrete(5),
    "choices": spaces.MultiDiscrete([3, 2, 4]),
    "bits": spaces.MultiBinary(4),
    "numbers by key": spaces.Dict(OrderedDict(z=_box(2), a=_box(3, dtype=np.float64), m=_box(1, 2))),
    "all by key": spaces.Dict(
        OrderedDict(
            position=_box(2, 2, dtype=np.float64), camera=spaces.Box(0, 255, (4, 5, 3), np.uint8),
            mode=spaces.Discrete(3), bits=spaces.MultiBinary(2), dials=spaces.MultiDiscrete([2, 3]),
        )
    ),
    "keys with dots": spaces.Dict(OrderedDict({"a.b": _box(2), "training": _box(1)})),
}  # fmt: skip
# what stable-baselines3 has no place for, and other targets have
ELSEWHERE: dict[str, spaces.Space[Any]] = {
    "from -2": spaces.Discrete(4, start=-2),
    "tuple": spaces.Tuple([_box(2), spaces.Discrete(3)]),
    "nested": spaces.Dict({"outer": spaces.Dict({"inner": _box(2)}), "plain": _box(1)}),
    "choices in a matrix": spaces.MultiDiscrete(np.array([[3, 2], [4, 2]])),
}


def student_on(
    space: spaces.Space[Any],
    family: str = "gaussian",
    activation: Any = "tanh",
    *,
    hidden: tuple[int, ...] = (6, 5),
    masked: bool = False,
    action_space: spaces.Space[Any] | None = None,
    unscale: bool | None = None,
) -> MlpStudent:
    """A random student on `space`, whose normaliser scales every feature; actions start at 0. `unscale`: whether they
    lie in [-1, 1], else if squashed; a Gaussian's do in students of TD3."""
    distribution, own = FAMILIES[family]
    wanted = action_space or {"categorical": spaces.Discrete(3), "gaussian": WIDE, "squashed": WIDE}.get(family, own)
    rng = np.random.default_rng(0)
    packing = packing_of(space)
    n_features = packing.n_features
    sizes = [n_features, *hidden, distribution.n_means]
    layers = tuple(
        (
            torch.from_numpy((rng.normal(size=(i, o)) / np.sqrt(i)).astype("f4")),
            torch.from_numpy(rng.normal(size=o).astype("f4")),
        )
        for i, o in itertools.pairwise(sizes)
    )
    packed = packing.pack_batch(batch_of(space))
    student = MlpStudent(
        normaliser=_normaliser(packing.features(packed)[4:], rng),
        layers=layers,
        log_std=torch.from_numpy(rng.normal(-1, 0.3, distribution.n_params - distribution.n_means).astype("f4")),
        activation=activation,
        distribution=distribution,
        action_map=action_map(wanted, unscale=family == "squashed" if unscale is None else unscale),
        observation_space=space,
        action_space=wanted,
        provenance={"policykd": "test"},
        masked=masked,
    )
    return _spread(student, packed)


def _spread(student: MlpStudent, packed: np.ndarray) -> MlpStudent:
    """The student with outputs of mean 0 and deviation 1 on these observations: every action is taken."""
    outputs = student.distribution_params(torch.from_numpy(torch_ready(packed)))[:, : student.distribution.n_means]
    *layers, (weight, bias) = student.layers
    mean, std = outputs.mean(0), outputs.std(0)
    return replace(student, layers=(*layers, (weight / std, (bias - mean) / std)))


def _normaliser(features: np.ndarray, rng: np.random.Generator) -> Normaliser:
    """One that scales every feature, and clips some."""
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 0, std, 1.0) * np.exp(rng.normal(0, 0.3, len(std)))
    return Normaliser((mean + 0.3 * std).astype("f4"), (1 / std).astype("f4"), limit=2.5)


def batch_of(space: spaces.Space[Any], n: int = N, seed: int = 0) -> Any:
    """n observations, extremes among them, as `predict` takes a batch."""
    if isinstance(space, spaces.Dict):
        return {key: batch_of(inner, n, seed + i) for i, (key, inner) in enumerate(space.spaces.items())}
    if isinstance(space, spaces.Tuple):
        return tuple(batch_of(inner, n, seed + i) for i, inner in enumerate(space.spaces))
    rng = np.random.default_rng(seed)
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        ones = (1,) * len(space.shape)
        values = rng.normal(size=(n, *space.shape)) * np.exp(rng.normal(size=(n, *ones)))
        values[:4] = np.array([0.0, 3e4, -3e4, 1e-6]).reshape(4, *ones)
        return values.astype(space.dtype)
    space.seed(seed)
    values = np.stack([space.sample() for _ in range(n)])
    if isinstance(space, spaces.Box):
        values[0], values[1] = space.low, space.high
    return values


def feed_of(student: MlpStudent, batch: Any, mask: Any = None, noise: Any = None) -> Feed:
    """The batch as an exported student takes it."""
    packing = student.packing
    return Feed(split(packing, packing.pack_batch(batch)), mask, noise)


def mask_of(size: int, sizes: tuple[int, ...], n: int = N, seed: int = 0) -> np.ndarray:
    """Random masks [n, size], of which every choice allows something."""
    rng = np.random.default_rng(seed)
    mask = rng.random((n, size)) < 0.5
    for end, count in zip(np.cumsum(sizes), sizes, strict=True):
        mask[np.arange(n), end - count + rng.integers(0, count, n)] = True
    return mask
