"""Every random number of a run descends from one root by name, never from a shared stream.

A shard's numbers follow from (root, stage, round, shard) alone, so a resumed run, or one on another machine,
draws the same ones. Training episodes use seeds of 2^31 and above; the seeds that choose and the seeds that are
reported lie below (the configuration's `Seed` type), so the three sets cannot meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import torch

Stage = Literal["init", "collect", "act", "update", "bootstrap", "random", "disturb", "draw"]
_STAGES: dict[Stage, int] = {name: 1 + k for k, name in enumerate(get_args(Stage))}
TRAINING_SEEDS_FROM = 2**31


@dataclass(frozen=True)
class SeedKey:
    """The name of one stream of random numbers."""

    root: int
    stage: Stage
    round: int = 0
    shard: int = 0

    def sequence(self, *more: int) -> np.random.SeedSequence:
        """The numpy seed sequence of this key, extended by further integers."""
        return np.random.SeedSequence((self.root, _STAGES[self.stage], self.round, self.shard, *more))

    def numpy(self, *more: int) -> np.random.Generator:
        """A numpy generator of this key."""
        return np.random.Generator(np.random.PCG64(self.sequence(*more)))

    def torch(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A torch generator of this key on `device`."""
        import torch

        generator = torch.Generator(device=device)
        generator.manual_seed(int(self.sequence().generate_state(1, np.uint64)[0] >> np.uint64(1)))
        return generator

    def episode_seed(self, slot: int, episode: int) -> int:
        """The environment seed of one slot's n-th episode: 2^31 <= seed < 2^32."""
        return int(self.sequence(slot, episode).generate_state(1)[0]) | TRAINING_SEEDS_FROM
