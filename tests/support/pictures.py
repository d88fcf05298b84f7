"""An environment on pictures, and a teacher that needs no training: the action is where a red patch lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policykd.loss.distributions import Categorical
from policykd.spine.types import Footprint, TeacherInfo
from policykd.teachers.base import Interface, Teacher
from policykd.teachers.networks import Fingerprint

SIDE = 16
IMAGE = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
MIXED = spaces.Dict(
    {
        "image": IMAGE,
        "mirror": spaces.Discrete(2),
        "map": spaces.Box(0, 1, (1, 8, 8), np.float32),
        "speed": spaces.Box(-1, 1, (2,)),
    }
)


class Patch(gym.Env[Any, Any]):
    """Ten pictures of noise with a red patch in one of four quarters, which is the right action; with `mixed` beside
    other observations, one of which mirrors it. With `masked` a wrong action is forbidden, and must not be taken."""

    def __init__(self, *, mixed: bool = False, masked: bool = False) -> None:
        self.observation_space: spaces.Space[Any] = MIXED if mixed else IMAGE
        self.action_space: spaces.Space[Any] = spaces.Discrete(4)
        self._guarded = masked

    def action_masks(self) -> np.ndarray:
        return np.arange(4) != (self._right + self._off) % 4

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 10
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert not self._guarded or self.action_masks()[int(action)], "a forbidden action was taken"
        reward = float(int(action) == self._right)
        self._left -= 1
        return self._seen(), reward, False, self._left == 0, {}

    def _seen(self) -> Any:
        rng = self.np_random
        quarter, mirror, self._off = int(rng.integers(4)), int(rng.integers(2)), int(rng.integers(1, 4))
        image = rng.integers(0, 80, IMAGE.shape).astype(np.uint8)
        row, column = rng.integers(0, SIDE // 2 - 3, 2) + SIDE // 2 * np.array([quarter // 2, quarter % 2])
        image[row : row + 4, column : column + 4, 0] = 220
        if self.observation_space is IMAGE:
            self._right = quarter
            return image
        self._right = 3 - quarter if mirror else quarter
        return {
            "image": image,
            "mirror": mirror,
            "map": rng.random((1, 8, 8), np.float32),
            "speed": rng.random(2, np.float32),
        }


@dataclass(frozen=True)
class _Finds:
    """The `Forward` of the teacher: logits of the quarter with the most red, mirrored where the observation says so."""

    device: torch.device = torch.device("cpu")
    distribution = Categorical(4)
    kind = "policy"
    unit_actions = adds_start = False

    def __call__(self, leaves: Sequence[Tensor]) -> Tensor:
        image = next(leaf for leaf in leaves if leaf.shape[1:] == IMAGE.shape).float()
        half = SIDE // 2
        red = (image[..., 0] > 150).float().view(-1, 2, half, 2, half).sum((2, 4)).view(-1, 4)
        mirror = [leaf for leaf in leaves if leaf.dim() == 1]
        if mirror:
            red = torch.where(mirror[0].bool().unsqueeze(-1), red.flip(-1), red)
        return red / 2

    def to(self, device: torch.device) -> _Finds:
        return _Finds(device)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint().add_text("patch")


def finder(*, mixed: bool = False, masked: bool = False) -> Teacher:
    """The teacher of `Patch`."""
    info = TeacherInfo(
        source="live patch",
        sha256="0" * 64,
        algo="maskable_ppo" if masked else "custom",
        env_id=None,
        trained_on=None,
        layers=(),
        activation="relu",
        normalised=False,
        gsde=False,
        footprint=Footprint(0, 0, 0),
    )
    network: Any = _Finds()
    return Teacher(network, Interface(MIXED if mixed else IMAGE, spaces.Discrete(4)), info)
