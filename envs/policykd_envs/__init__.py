"""Gymnasium environments for what the standard ones lack. Importing the package registers them."""

from __future__ import annotations

from policykd_envs.grid_raid.registration import register_grid_raid

register_grid_raid()
