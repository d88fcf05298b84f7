"""From the name of a wrapper to its class: a table of our own, `gymnasium.wrappers`, or an import that is allowed."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from policykd.spine.errors import InputError
from policykd.spine.wrappers import ATARI, GRIDS, OWN, STACK, Wrappers, imports

if TYPE_CHECKING:
    import gymnasium as gym

    AnyEnv = gym.Env[Any, Any]

HINT = "check env.kwargs and env.wrappers"


def wrap(env: AnyEnv, wrappers: Wrappers, allow_import: bool) -> AnyEnv:
    """The environment in its wrappers, the first innermost; InputError for one that is unknown or cannot be applied."""
    import gymnasium as gym

    for name, kwargs in wrappers:
        wrapper = _found(name, allow_import)
        try:
            env = wrapper(env, **_arguments(name, kwargs))
        except (TypeError, ValueError, AssertionError, AttributeError, ImportError, gym.error.Error) as error:
            raise InputError(f"env.wrappers: {name} cannot be applied ({one_line(error)}); {HINT}") from None
    return env


def _found(name: str, allow_import: bool) -> Callable[..., AnyEnv]:
    import gymnasium as gym

    if name in OWN:
        return _own(name)
    if not imports(name):
        try:
            found = getattr(gym.wrappers, name, None)
        except ImportError as error:
            raise InputError(f"env.wrappers: {name} needs a package ({one_line(error)}): install it") from None
        if not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
            close = difflib.get_close_matches(name, [*gym.wrappers.__all__, *OWN], n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "use package.module:Class with --allow-import"
            raise InputError(f"env.wrappers: {name} is not a wrapper of gymnasium.wrappers; {hint}")
        return found
    module, _, attribute = name.partition(":")
    if not allow_import:
        raise InputError(f"env.wrappers: {name} would import {module}; add --allow-import if you trust it")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"env.wrappers: cannot import {name} ({one_line(error)}); install its package") from None
    if not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
        raise InputError(f"env.wrappers: {name} is not a subclass of gymnasium.Wrapper; name one")
    return found


def _own(name: str) -> Callable[..., AnyEnv]:
    """The class that a name of `OWN` stands for."""
    if name == STACK:
        from policykd.rollout.stacking import StackFrames

        return StackFrames
    if name == ATARI:
        from policykd.rollout.atari import atari

        return atari
    if name in GRIDS:
        from policykd.rollout.grids import grid_wrapper

        return grid_wrapper(name)
    from sb3_contrib.common.wrappers import TimeFeatureWrapper

    return TimeFeatureWrapper


def _arguments(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Gymnasium asks for tuples where YAML knows lists only."""
    shaped = not imports(name) and name not in OWN and isinstance(kwargs.get("shape"), list)
    return {**kwargs, "shape": tuple(kwargs["shape"])} if shaped else kwargs


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks and not too long."""
    return " ".join(str(error).split())[:200]
