"""A few observations of a space, always the same ones, to try a policy on."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium import spaces


def probes_of(space: spaces.Space[Any], count: int) -> list[Any]:
    """`count` observations. Those of a Box of floats are standard normal within its bounds, which may be as wide as
    float32 is; all others are what the space itself draws."""
    own = copy.deepcopy(space)
    own.seed(0)
    rng = np.random.default_rng(0)
    return [_drawn(own, rng) for _ in range(count)]


def _drawn(space: spaces.Space[Any], rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _drawn(sub, rng) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_drawn(sub, rng) for sub in space.spaces)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return np.clip(rng.normal(size=space.shape), space.low, space.high).astype(space.dtype)
    return space.sample()
