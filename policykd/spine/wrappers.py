"""Wrappers of environments as data: their names and keyword arguments, as configurations and files give them.

Nothing is imported here. `policykd.rollout.wrappers` makes environments of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from policykd.spine.errors import InputError, brief

Wrapper = tuple[str, dict[str, Any]]
Wrappers = tuple[Wrapper, ...]

TIME_FEATURE = "TimeFeatureWrapper"
ATARI = "AtariWrapper"
STACK = "StackFrames"
GRIDS = (
    "ImgObsWrapper",
    "FullyObsWrapper",
    "OneHotPartialObsWrapper",
    "RGBImgObsWrapper",
    "RGBImgPartialObsWrapper",
    "FlatObsWrapper",
)
"""Names of minigrid.wrappers."""
OWN = (TIME_FEATURE, ATARI, STACK, *GRIDS)
"""Names that stand for classes which policykd chooses itself, beside those of gymnasium.wrappers."""
_SEEN = (TIME_FEATURE, STACK, *GRIDS)
_SKIPS = "MaxAndSkipObservation"  # of gymnasium: steps several times, and sums the rewards

WRITERS = frozenset({"RecordVideo"})
"""Wrappers of gymnasium that write where their arguments say."""

MAX_STACK = 64  # frames
_MAX_WRAPPERS = 32
_MAX_INTEGER, _MAX_PIXELS = 10_000, 2**20  # what a file may ask a wrapper for
_FREE = ("max_steps", "max_episode_steps", "min_reward", "max_reward", "min_action", "max_action", "min_obs", "max_obs")
_FRAMES = ("n", "stack_size", "num_stack")
_NAME = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)
_IMPORTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def parsed(entry: str | dict[str, dict[str, Any]]) -> Wrapper:
    """Name and keyword arguments of an entry of `env.wrappers`; InputError where it holds several wrappers."""
    if isinstance(entry, str):
        return entry, {}
    if len(entry) != 1:
        raise InputError(
            f"env.wrappers: {sorted(entry)} in one entry, expected one wrapper: start each with its own dash"
        )
    name, kwargs = next(iter(entry.items()))
    return name, dict(kwargs)


def written(wrappers: Iterable[Wrapper]) -> list[str | dict[str, dict[str, Any]]]:
    """The same as entries of `env.wrappers`."""
    return [{name: dict(kwargs)} if kwargs else name for name, kwargs in wrappers]


def imports(name: str) -> bool:
    """Whether the name is `package.module:Class`, which has to be imported."""
    return ":" in name


def judged_by(wrappers: Wrappers) -> Wrappers:
    """Those that may change what an episode is worth: all but the ones that only change what is observed."""
    return tuple(wrapper for wrapper in wrappers if not _only_observes(wrapper[0]))


def seen_by(wrappers: Wrappers) -> Wrappers:
    """The others: those that only change what is observed."""
    return tuple(wrapper for wrapper in wrappers if _only_observes(wrapper[0]))


def views_of(entries: Sequence[str | dict[str, dict[str, Any]]]) -> Wrappers:
    """The wrappers of `student.wrappers`; InputError for one that is known to do more than observe. What an imported
    one does shows when it is used."""
    try:
        wrappers = tuple(parsed(entry) for entry in entries)
    except InputError as error:
        raise renamed(error, "student.wrappers") from None
    for name, _ in judged_by(wrappers):
        if not imports(name):
            raise InputError(
                f"student.wrappers: {brief(name)} is no wrapper that only changes what is observed, expected "
                "StackFrames, TimeFeatureWrapper or a name of gymnasium.wrappers that ends in Observation: correct it, "
                "or put it into env.wrappers, where it holds for teacher and student"
            )
    return wrappers


def renamed(error: InputError, key: str) -> InputError:
    """An error about `env.wrappers` as one about the wrappers that `key` names."""
    return InputError(str(error).replace("env.wrappers", key))


def _only_observes(name: str) -> bool:
    return name in _SEEN or (name.endswith("Observation") and name != _SKIPS)


def from_file(entries: Any, where: str) -> Wrappers:
    """The wrappers of `env.wrappers` as a file records them, checked; InputError, beginning with `where`, if amiss."""
    if entries in (None, []):
        return ()
    one = (str, dict)
    if not isinstance(entries, list) or not all(isinstance(entry, one) and entry for entry in entries):
        raise InputError(f"{where}: no list of wrappers, expected names and mappings {{name: {{argument: value}}}}")
    found = []
    for entry in entries:
        name, kwargs = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        if isinstance(entry, dict) and len(entry) != 1:
            raise InputError(f"{where}: {len(entry)} wrappers in one mapping, expected one: start each with its dash")
        found.append((name, {} if kwargs is None else kwargs))
    return checked(found, where)


def checked(wrappers: Sequence[tuple[Any, Any]], where: str) -> Wrappers:
    """Wrappers that a file names, and not the user; InputError, which begins with `where`, for those that write, for
    arguments that are no plain values, and for sizes that could fill the memory."""
    if len(wrappers) > _MAX_WRAPPERS:
        raise InputError(f"{where}: {len(wrappers)} wrappers, expected at most {_MAX_WRAPPERS}")
    for name, kwargs in wrappers:
        if not isinstance(name, str) or len(name) > 200 or not (_NAME.fullmatch(name) or _IMPORTED.fullmatch(name)):
            raise InputError(f"{where}: {_short(name)} is no name of a wrapper: correct it there")
        if name in WRITERS:
            raise InputError(f"{where}: {name} writes files, which no wrapper that a file names may: take it out there")
        if not isinstance(kwargs, dict) or not _is_plain(kwargs):
            raise InputError(f"{where}: the arguments of {name} are no mapping of plain values: correct them there")
        large = None if imports(name) else next((key for key in kwargs if not _is_bounded(key, kwargs[key])), None)
        if large is not None:
            raise InputError(f"{where}: {name} with {_short(large)} {_short(kwargs[large])}: is out of bounds there")
    return tuple((str(name), dict(kwargs)) for name, kwargs in wrappers)


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether it is a text, a truth value, None or a finite number, or lists and mappings of such, not too deep."""
    if isinstance(value, list | dict):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        named = not isinstance(value, dict) or all(isinstance(key, str) for key in value)
        return named and depth < 4 and len(inner) < 10_000 and all(_is_plain(item, depth + 1) for item in inner)
    return value is None or isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))


def _is_bounded(key: str, value: Any) -> bool:
    """Whether a number, a text or a shape is small enough for a wrapper whose code is known."""
    if key in _FREE:  # limits of episodes and values, which cost nothing
        return True
    if isinstance(value, dict):
        return all(_is_bounded(*item) for item in value.items())
    if isinstance(value, list):
        numbers = [number for number in value if isinstance(number, int)]
        return all(_is_bounded("", item) for item in value) and abs(math.prod(numbers)) <= _MAX_PIXELS
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, str):
        return len(value) <= 200
    limit = MAX_STACK if key in _FRAMES else _MAX_INTEGER
    return isinstance(value, float) or abs(value) <= limit


def _short(value: Any) -> str:
    return repr(value)[:80] if isinstance(value, str | int | float) else f"a {type(value).__name__}"
