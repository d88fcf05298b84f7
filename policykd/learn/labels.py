"""What a label holds behind the teacher's parameters where the loss asks for more: made once, kept with the shard."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from policykd.loss.losses import action_width
from policykd.spine.config.schema import Config
from policykd.spine.seeding import SeedKey
from policykd.spine.types import TeacherPolicy


def label_width(config: Config, teacher: TeacherPolicy) -> int:
    """Numbers of one label: the teacher's parameters, and what stands beside them."""
    return teacher.distribution.n_params + (action_width(teacher.distribution) if _draws(config) else 0)


def beside(
    config: Config, teacher: TeacherPolicy, params: NDArray[np.float32], round_index: int
) -> NDArray[np.float32] | None:
    """The columns [M, E] beside the teacher's parameters [M, P] of one round's states; None where there are none.

    loss.hard sample: one action that the teacher draws in each state, in the shape of `Distribution.sample`.
    """
    if not _draws(config):
        return None
    generator = SeedKey(config.seed, "draw", round_index).torch("cpu")
    action = teacher.distribution.sample(torch.from_numpy(np.ascontiguousarray(params)), generator)
    return action.reshape(len(params), -1).float().numpy()


def _draws(config: Config) -> bool:
    return config.loss.hard == "sample" and config.loss.uses_hard
