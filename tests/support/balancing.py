"""A second teacher of CartPole that needs no training."""

from __future__ import annotations

import torch
from gymnasium import spaces

from policykd.teachers.base import Teacher
from policykd.teachers.custom import make_custom_teacher


def balancing(sign: float = 1.0) -> Teacher:
    """A teacher of another kind for CartPole: values by which way the pole falls; with sign -1 it pushes it over."""
    space = spaces.Box(-5.0, 5.0, (4,))

    def values(observation: torch.Tensor) -> torch.Tensor:
        lean = sign * (observation[:, 2] + 0.5 * observation[:, 3])
        return 100 * torch.stack([-lean, lean], -1)

    return make_custom_teacher(
        values, space, spaces.Discrete(2), kind="value", env_id="CartPole-v1", name=f"balancing{sign}"
    )
