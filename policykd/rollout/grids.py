"""The environments of MiniGrid where an id needs them, and its wrappers that change what is observed, by their names.

minigrid is installed with `policykd[minigrid]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from policykd.spine.errors import InputError

_ID = re.compile(r"(?:MiniGrid|BabyAI)-[\w-]+", re.ASCII)
_EXTRA = "which is not installed: pip install 'policykd[minigrid]'"


def register_grids(env_id: str) -> bool:
    """Registers the environments of minigrid if the id looks like one of them; False if it does not. InputError without
    the package."""
    if _ID.fullmatch(env_id) is None:
        return False
    try:
        import minigrid
    except ImportError:
        raise InputError(f"env {env_id}: needs minigrid, {_EXTRA}") from None
    if env_id not in gym.registry:
        gym.register_envs(minigrid)  # an import registers them
    return True


def grid_wrapper(name: str) -> Callable[..., gym.Env[Any, Any]]:
    """The class of this name in `minigrid.wrappers`. InputError without the package."""
    try:
        from minigrid import wrappers
    except ImportError:
        raise InputError(f"env.wrappers: {name} needs minigrid, {_EXTRA}") from None
    found: Callable[..., gym.Env[Any, Any]] = getattr(wrappers, name)
    return found
