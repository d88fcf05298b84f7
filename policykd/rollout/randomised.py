"""An environment some of whose own numbers are drawn anew for every episode."""

from __future__ import annotations

import difflib
from typing import Any
from zlib import crc32

import gymnasium as gym
import numpy as np

from policykd.spine.errors import InputError, brief
from policykd.spine.seeding import SeedKey

_STREAM = 3  # of an episode, beside those of `policykd.rollout.disturbed`


class RandomParameters(gym.Wrapper[Any, Any, Any, Any]):
    """Before every reset each parameter is its value at first times a factor between `low` and `high`, uniform, which
    follows from the seed and the parameter's path alone; an array is scaled as a whole.

    parameters: (path from `env.unwrapped`, low, high) each. InputError for a path that does not exist, cannot be set,
    or holds no finite float, int or array of floats other than zero.
    """

    def __init__(self, env: gym.Env[Any, Any], parameters: tuple[tuple[str, float, float], ...], name: str) -> None:
        super().__init__(env)
        self._parameters, self._again = parameters, 0
        self._seed = 0
        self._first = {path: self._read(path, name) for path, _, _ in parameters}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's own; without a seed the next factors after those of the last seed."""
        self._again = 0 if seed is not None else self._again + 1
        self._seed = self._seed if seed is None else seed
        for path, low, high in self._parameters:
            rng = SeedKey(self._seed, "disturb").numpy(_STREAM, crc32(path.encode()), self._again)
            self._write(path, self._first[path] * rng.uniform(low, high))
        return super().reset(seed=seed, options=options)

    def _read(self, path: str, name: str) -> Any:
        where = f"robust.parameters {path}: env {brief(name)}"
        owner, last = self._owner(path, where)
        value = _attribute(owner, last, where)
        is_array = isinstance(value, np.ndarray) and value.ndim > 0
        kinds = "f" if is_array else "fiu"
        if isinstance(value, bool) or np.asarray(value).dtype.kind not in kinds:
            found = f"an array of {value.dtype}" if is_array else type(value).__name__
            raise InputError(f"{where} has {brief(found)} there, expected a number or an array of floats")
        if not np.isfinite(value).all() or not np.any(value):
            raise InputError(f"{where} has {brief(value)} there, which no factor changes")
        first = np.array(value) if is_array else float(value)
        try:
            self._write(path, 2 * first)
            changed = np.array_equal(getattr(owner, last), 2 * first)  # not so where a property hands out a copy
            self._write(path, first if is_array else value)
        except (AttributeError, TypeError, ValueError):
            changed = False
        if not changed:
            raise InputError(f"{where} does not let it be set; choose another attribute")
        return first

    def _write(self, path: str, value: Any) -> None:
        owner, last = self._owner(path, path)
        if isinstance(value, np.ndarray):
            getattr(owner, last)[...] = value
        else:
            setattr(owner, last, value)

    def _owner(self, path: str, where: str) -> tuple[Any, str]:
        owner: Any = self.env.unwrapped
        *parts, last = path.split(".")
        for part in parts:
            owner = _attribute(owner, part, where)
        return owner, last


def _attribute(owner: Any, name: str, where: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        close = difflib.get_close_matches(name, [other for other in dir(owner) if other[0] != "_"], n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise InputError(f"{where} has no attribute {name!r} in {type(owner).__name__}{hint}") from None
