"""The ids of GridRaid."""

from __future__ import annotations

import gymnasium

from policykd_envs.grid_raid import rules

IDS = {"GridRaid-v0": False, "GridRaidMulti-v0": True}


def register_grid_raid() -> None:
    """Make the ids known to gymnasium.make and make_vec; those that are known already stay as they are."""
    for name, multi in IDS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="policykd_envs.grid_raid.single:GridRaidEnv",
                vector_entry_point="policykd_envs.grid_raid.vector:GridRaidVectorEnv",
                max_episode_steps=rules.TURNS,
                kwargs={"multi": multi},
            )
