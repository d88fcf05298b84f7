"""What MaskablePPO's network does differently: two outputs for each bit, off and on."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium import spaces
from torch import Tensor

from policykd.teachers.modelspec import MASKABLE_ALGOS, ModelSpec


@dataclass(frozen=True)
class PairedLogits:
    """Outputs [B, 2 * n], off and on of each bit in turn; the logit of a bit is on - off: softmax of two choices."""

    def __call__(self, latent: Tensor, output: Tensor) -> Tensor:
        return output[:, 1::2] - output[:, 0::2]


def has_paired_bits(spec: ModelSpec) -> bool:
    """Whether each bit of the action has two outputs."""
    return spec.algo in MASKABLE_ALGOS and isinstance(spec.action_space, spaces.MultiBinary)
