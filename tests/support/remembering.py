"""Random students with a memory, for the tests of exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policykd.spine.packing import packing_of
from policykd.spine.spaces import action_map
from policykd.students.gru import GruStudent
from policykd.students.normaliser import Normaliser
from policykd.students.numpy_backend import gru_shapes
from tests.support.core import FAMILIES

NARROW = spaces.Box(-5, 5, (3,), np.float32)


def remembering(
    family: str, *, hidden: int = 5, seed: int = 0, spread: float = 0.7, space: spaces.Space[Any] = NARROW
) -> GruStudent:
    """A student of the family, with weights drawn with that spread; choices from 0, which every target can hold."""
    distribution, actions = FAMILIES[family]
    actions = spaces.Discrete(3) if family == "categorical" else actions
    rng, n_inputs = np.random.default_rng(seed), packing_of(space).n_features
    shapes = gru_shapes(n_inputs, hidden, distribution.n_means).items()
    return GruStudent(
        normaliser=Normaliser.measured(rng.normal(rng.normal(size=n_inputs), 1.0, (50, n_inputs))),
        parts={name: torch.from_numpy(rng.normal(0, spread, shape).astype("f4")) for name, shape in shapes},
        log_std=torch.full((distribution.n_params - distribution.n_means,), -1.0),
        distribution=distribution,
        action_map=action_map(actions, unscale=family == "squashed"),
        observation_space=space,
        action_space=actions,
        provenance={"policykd": "test"},
    )
