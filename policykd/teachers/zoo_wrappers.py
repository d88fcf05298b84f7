"""The wrappers that a folder of the RL-Zoo names: `env_wrapper` and `frame_stack` of config.yml, as data.

The zoo imports what stands there. Here a name is looked up in a table, or becomes `package.module:Class`, which nothing
imports unless the user says --allow-import.
"""

from __future__ import annotations

import re
from typing import Any

from policykd.spine.errors import InputError
from policykd.spine.wrappers import ATARI, MAX_STACK, STACK, TIME_FEATURE, Wrappers, checked

_KNOWN = {
    "sb3_contrib.common.wrappers.TimeFeatureWrapper": TIME_FEATURE,
    "sb3_contrib.common.wrappers.time_feature.TimeFeatureWrapper": TIME_FEATURE,
    "rl_zoo3.wrappers.TimeFeatureWrapper": TIME_FEATURE,
    "utils.wrappers.TimeFeatureWrapper": TIME_FEATURE,
    "stable_baselines3.common.atari_wrappers.AtariWrapper": ATARI,
    "rl_zoo3.wrappers.YAMLCompatResizeObservation": "ResizeObservation",
    "utils.wrappers.YAMLCompatResizeObservation": "ResizeObservation",
}
_GYMNASIUM = re.compile(r"(?:gymnasium|gym)\.wrappers\.(?:[a-z_0-9]+\.)?(?P<name>[A-Z][A-Za-z0-9]*)", re.ASCII)
_RENAMED = {"GrayScaleObservation": "GrayscaleObservation"}  # in Gymnasium 1.0
_DOTTED = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\.(?P<name>[A-Za-z_]\w*)", re.ASCII)
_NONE: tuple[Any, ...] = (None, [], {}, "")


def read_wrappers(settings: dict[str, Any], where: str, *, normalised: bool) -> Wrappers:
    """The wrappers of `settings`, innermost first, with the frames stacked outside of them.

    `where` names the file in messages; `normalised` says whether observations are. InputError for what is no wrapper,
    for a number of frames out of bounds, and for frames that are stacked after they were normalised.
    """
    wrappers = [_wrapper(entry, where) for entry in _entries(settings.get("env_wrapper"))]
    n = _frames(settings.get("frame_stack"), where)
    if n > 1 and normalised:
        raise InputError(
            f"{where}: frame_stack {n} with normalised observations: the zoo stacks frames after it normalised them, "
            "and a teacher here normalises what the environment gives: use a teacher with one of the two"
        )
    return checked([*wrappers, *([(STACK, {"n": n})] if n > 1 else [])], f"{where}: env_wrapper")


def _entries(value: Any) -> list[Any]:
    if value in _NONE:
        return []
    return value if isinstance(value, list) else [value]


def _wrapper(entry: Any, where: str) -> tuple[str, Any]:
    """A text, or a mapping of one name to its keyword arguments."""
    single = isinstance(entry, dict) and len(entry) == 1
    name, kwargs = next(iter(entry.items())) if single else (entry, None)
    if not isinstance(name, str):
        found = f"{len(entry)} entries in one mapping" if isinstance(entry, dict) else f"a {type(name).__name__}"
        raise InputError(f"{where}: env_wrapper: {found}, expected a class, or one class with its arguments, for each")
    return _name(name, where), {} if kwargs is None else kwargs


def _name(dotted: str, where: str) -> str:
    """The name by which policykd knows the class; `package.module:Class` where it does not."""
    if dotted in _KNOWN:
        return _KNOWN[dotted]
    gymnasium = _GYMNASIUM.fullmatch(dotted)
    if gymnasium is not None:
        return _RENAMED.get(gymnasium["name"], gymnasium["name"])
    other = _DOTTED.fullmatch(dotted)
    if other is None or len(dotted) > 200:
        raise InputError(f"{where}: env_wrapper {dotted[:80]!r} is no name of a class, expected package.module.Class")
    return f"{other['module']}:{other['name']}"


def _frames(value: Any, where: str) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if value in _NONE:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_STACK:
        raise InputError(f"{where}: frame_stack {str(value)[:40]!r}, expected a number of frames, 1 to {MAX_STACK}")
    return value
