"""Today's environment id for the id that a teacher's file names. Ids out of files never import anything."""

from __future__ import annotations

import re

from policykd.spine.errors import InputError

_ID = re.compile(r"^(?:(?P<namespace>[\w.-]+)/)?(?P<name>[\w.-]+?)(?:-v(?P<version>\d{1,9}))?\Z", re.ASCII)


def modern_id(env_id: str, source: str) -> tuple[str, str | None]:
    """The id to use now, and a note where it differs from `env_id`.

    An id that works stays. Otherwise the lowest working version above it of the same name is taken (LunarLander-v2 ->
    v3, Hopper-v3 -> v4). An id of which no version is registered stays too: its package may be imported later.
    InputError for `module:Id`, which would import the module.
    """
    match = _ID.match(env_id)
    if match is None:
        raise InputError(
            f"{source}: environment id {env_id[:80]!r} is not allowed in a file (module:Id would import code): correct "
            "it there, for example to CartPole-v1"
        )
    if match["version"] is None or _works(env_id):
        return env_id, None
    stem = env_id[: env_id.rindex("-v")]
    for version in sorted(_versions(stem)):
        if version > int(match["version"]):
            newer = f"{stem}-v{version}"
            return newer, f"environment {env_id} is {newer} today"
    return env_id, None


def is_registered(env_id: str) -> bool:
    """Whether Gymnasium knows the id and can make it."""
    return is_plain(env_id) and _works(env_id)


def is_plain(env_id: str) -> bool:
    """Whether the text is an id that imports nothing."""
    return _ID.match(env_id) is not None


def id_in_name(stem: str) -> tuple[str | None, tuple[str, ...]]:
    """The id that a file's name is, if it is one that works today or by another version, and what to say of that."""
    if not is_plain(stem) or not _works(modern_id(stem, stem)[0]):
        return None, ()
    return stem, (f"environment {stem} is taken from the file's name",)


def _works(env_id: str) -> bool:
    """Registered, and no stub: the MuJoCo v2 and v3 ids are registered to raise an error that mujoco-py is gone."""
    from gymnasium.envs.registration import registry

    spec = registry.get(env_id)
    return spec is not None and getattr(spec.entry_point, "__name__", "") != "_raise_mujoco_py_error"


def _versions(stem: str) -> list[int]:
    from gymnasium.envs.registration import registry

    prefix = f"{stem}-v"
    tails = [env_id.removeprefix(prefix) for env_id in registry if env_id.startswith(prefix)]
    return [int(tail) for tail in tails if tail.isdecimal() and _works(prefix + tail)]
