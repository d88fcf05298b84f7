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
from policykd.teachers.base import Forward, Interface, Teacher
from policykd.teachers.extractors import Extractor, NatureCnn
from policykd.teachers.networks import Dense, Fingerprint, Logits, Network

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
    network: Any = _Finds()
    return _known(network, MIXED if mixed else IMAGE, "maskable_ppo" if masked else "custom")


def _known(network: Forward, space: spaces.Space[Any], algo: str) -> Teacher:
    info = TeacherInfo(
        source="live patch",
        sha256="0" * 64,
        algo=algo,
        env_id=None,
        trained_on=None,
        layers=(),
        activation="relu",
        normalised=False,
        gsde=False,
        footprint=Footprint(0, 0, 0),
    )
    return Teacher(network, Interface(space, spaces.Discrete(4)), info)


class Enlarged(gym.ObservationWrapper[Any, Any, Any]):
    """`Patch` with its channels first and pixels three times as large, 48 a side: large enough for a NatureCNN."""

    def __init__(self) -> None:
        super().__init__(Patch())
        self.observation_space = LARGE

    def observation(self, observation: Any) -> Any:
        return observation.transpose(2, 0, 1).repeat(3, 1).repeat(3, 2)


LARGE = spaces.Box(0, 255, (3, 3 * SIDE, 3 * SIDE), np.uint8)


def looker() -> Teacher:
    """The teacher of `Enlarged`: a NatureCNN that sees red, and adds up where, on maps of 11 x 11, 4 x 4 and 2 x 2."""
    weights = [torch.zeros(out, into, side, side) for out, into, side in ((32, 3, 8), (64, 32, 4), (64, 64, 3))]
    biases = [torch.zeros(len(weight)) for weight in weights]
    weights[0][0, 0], biases[0][0] = 1 / 64, -0.4
    weights[1][0, 0], weights[2][0, 0] = 0.25, 1.0
    linear = torch.zeros(512, 256)
    linear[:4, :4] = torch.eye(4)
    cnn = NatureCnn(tuple(weights), tuple(biases), linear, torch.zeros(512), True, (121, 16, 4))
    head = Dense(5 * torch.eye(4, 512), torch.zeros(4), "identity")
    network = Network(Extractor((cnn,)), (head,), Logits(), Categorical(4), "policy", False)
    return _known(network, LARGE, "ppo")
