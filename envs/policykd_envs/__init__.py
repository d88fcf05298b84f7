"""Environments of policykd's own, in NumPy, after Gymnasium's interface; importing this package registers them.

Gymnasium 1.0 took its loading of plug-ins away, so `gymnasium.make` alone finds nothing that was not imported: write
`import policykd_envs` first, or `gymnasium.make("policykd_envs:LidarNav-v0")`. policykd itself follows the entry point
(group `gymnasium.envs`) of its own wheel. docs/environments.md describes each environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium

from policykd_envs.grid_raid.rules import TURNS


class Entry(NamedTuple):
    """A line of the table: id, single class and vector class (`module:Class` in this package), steps of an episode, and
    what both classes are made with."""

    id: str
    single: str
    vector: str
    max_episode_steps: int
    kwargs: Mapping[str, Any] = MappingProxyType({})


_GRID_RAID = "grid_raid.single:GridRaidEnv", "grid_raid.vector:GridRaidVectorEnv"
ENVIRONMENTS = (
    Entry("LidarNav-v0", "lidar_nav:LidarNavEnv", "lidar_nav_vector:LidarNavVectorEnv", 200),
    Entry("CartPoleNoVel-v0", "no_velocity:CartPoleNoVelEnv", "no_velocity_vector:CartPoleNoVelVectorEnv", 500),
    Entry("PendulumNoVel-v0", "no_velocity:PendulumNoVelEnv", "no_velocity_vector:PendulumNoVelVectorEnv", 200),
    Entry("GridRaid-v0", *_GRID_RAID, TURNS, {"multi": False}),
    Entry("GridRaidMulti-v0", *_GRID_RAID, TURNS, {"multi": True}),
)


SHAPED = "GridRaidShaped-v0"
"""GridRaid with a reward for the way as well: to train teachers by, one at a time; judge them on GridRaid-v0."""


def register_envs() -> None:
    """Registers every environment that Gymnasium does not know yet."""
    if SHAPED not in gymnasium.registry:
        shaped = f"{__name__}.grid_raid.shaping:ShapedGridRaidEnv"
        gymnasium.register(SHAPED, entry_point=shaped, max_episode_steps=TURNS)
    for entry in ENVIRONMENTS:
        if entry.id not in gymnasium.registry:
            gymnasium.register(
                entry.id,
                entry_point=f"{__name__}.{entry.single}",
                vector_entry_point=f"{__name__}.{entry.vector}",
                max_episode_steps=entry.max_episode_steps,
                kwargs=dict(entry.kwargs),
            )


register_envs()
