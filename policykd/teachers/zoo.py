"""RL-Zoo folders: ALGO/ENV_1/ with ENV.zip beside ENV/config.yml, args.yml and vecnormalize.pkl."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policykd.spine.errors import InputError
from policykd.spine.wrappers import Wrappers
from policykd.teachers.yamldata import read_yaml
from policykd.teachers.zoo_wrappers import read_wrappers

BEST = "best_model.zip"
STATISTICS = "vecnormalize.pkl"
_CHECKPOINT = "rl_model_"
_UNSUPPORTED = "vec_env_wrapper"
_NO_NORM_OBS = re.compile(r"norm_obs['\"]?\s*[:=]\s*False")


@dataclass(frozen=True)
class ZooEntry:
    """What a folder of the zoo says of its teacher. `statistics` is None where observations are not normalised."""

    zip_path: Path
    algo: str | None
    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    statistics: Path | None = None
    wrappers: Wrappers = ()


def find_zip(folder: Path) -> Path:
    """The zip of the final model in a zoo folder, or best_model.zip where there is no other; InputError if none."""
    zips = sorted(folder.glob("*.zip"))
    named = folder / f"{_env_of(folder)}.zip"
    if named in zips:
        return named
    finals = [path for path in zips if path.name != BEST and not path.name.startswith(_CHECKPOINT)]
    if len(finals) == 1:
        return finals[0]
    if not finals and folder / BEST in zips:
        return folder / BEST
    found = zips or sorted(folder.iterdir())
    names = ", ".join(path.name for path in found[:5]) or "nothing"
    raise InputError(
        f"{folder}: no teacher to choose (found {names}): expected {named.name}, best_model.zip or teacher.zip; pass "
        "the path of one zip"
    )


def details_of(zip_path: Path) -> Path | None:
    """The zoo's folder of settings that belongs to a zip; None where there is none."""
    for folder in (zip_path.with_suffix(""), zip_path.parent / _env_of(zip_path.parent)):
        if any((folder / name).is_file() for name in ("config.yml", "args.yml")):
            return folder
    return None


def read_entry(zip_path: Path, details: Path, *, statistics_given: bool, env_name: str | None = None) -> ZooEntry:
    """The settings beside a zip of the zoo.

    InputError where they name something that is not supported, or statistics that are missing; `statistics_given`
    says that the user passed some. `env_name` is the id where args.yml names none, by default the folder's name.
    """
    config = read_yaml(details / "config.yml") if (details / "config.yml").is_file() else {}
    args = read_yaml(details / "args.yml") if (details / "args.yml").is_file() else {}
    if config.get(_UNSUPPORTED) not in (None, [], ""):
        raise InputError(
            f"{details / 'config.yml'}: the teacher was trained with {_UNSUPPORTED} {_short(config[_UNSUPPORTED])}, "
            "which is not supported: use a teacher without it"
        )
    env_id = args.get("env") if isinstance(args.get("env"), str) else details.name if env_name is None else env_name
    named, where = (config, "config.yml") if config else (_hyperparams(args), "args.yml")
    wrappers = read_wrappers(named, str(details / where), normalised=_normalises(config))
    statistics = None
    if not statistics_given and (_normalises(config) or _unsaid(details)):
        statistics = _statistics(zip_path, details)
    algo = args.get("algo") if isinstance(args.get("algo"), str) else zip_path.parent.parent.name
    return ZooEntry(zip_path, algo, str(env_id), _env_kwargs(args, config, details), statistics, wrappers)


def _env_of(folder: Path) -> str:
    """`LunarLander-v2` for a folder LunarLander-v2_1."""
    return re.sub(r"_\d+$", "", folder.resolve().name)


def _normalises(config: dict[str, Any]) -> bool:
    """Whether observations are normalised; the value may be text such as `dict(norm_obs=True)`, which is not run."""
    value, kwargs = config.get("normalize", False), config.get("normalize_kwargs")
    if value and isinstance(kwargs, dict) and kwargs.get("norm_obs") is False:
        return False
    if isinstance(value, dict):
        return value.get("norm_obs", True) is not False
    if isinstance(value, str):
        return value.strip().lower() not in ("", "false") and not _NO_NORM_OBS.search(value)
    return bool(value)


def _hyperparams(args: dict[str, Any]) -> dict[str, Any]:
    """What the command line of the zoo changed, where there is no config.yml to hold it."""
    given = args.get("hyperparams")
    return given if isinstance(given, dict) else {}


def _unsaid(details: Path) -> bool:
    """Whether there are statistics and no configuration that speaks of them."""
    return _statistics_file(details).is_file() and not (details / "config.yml").is_file()


def _statistics_file(details: Path) -> Path:
    """vecnormalize.pkl, or by the name that the zoo gives it on the Hub."""
    on_hub = details / "vec_normalize.pkl"
    return on_hub if on_hub.is_file() else details / STATISTICS


def _statistics(zip_path: Path, details: Path) -> Path:
    path = _statistics_file(details)
    if zip_path.name == BEST or zip_path.name.startswith(_CHECKPOINT):
        raise InputError(
            f"{zip_path}: was trained with normalised observations, and {path} belongs to the final model, not to this "
            "one: pass the statistics that fit it as vec_normalize"
        )
    if not path.is_file():
        raise InputError(
            f"{path}: missing, but {details / 'config.yml'} says that observations were normalised: fetch the file, or "
            "pass another as vec_normalize (without it the teacher acts at random)"
        )
    return path


def _env_kwargs(args: dict[str, Any], config: dict[str, Any], details: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    own = read_yaml(details / "env_kwargs.yml") if (details / "env_kwargs.yml").is_file() else None
    for kwargs in (own, config.get("env_kwargs"), args.get("env_kwargs")):
        if kwargs in (None, "", []):
            continue
        if not isinstance(kwargs, dict) or not all(_is_plain(value) for value in kwargs.values()):
            raise InputError(
                f"{details}: env_kwargs {_short(kwargs)} is no mapping of plain values: mend args.yml, "
                "or pass the zip alone"
            )
        merged.update({str(key): value for key, value in kwargs.items() if key != "render_mode"})
    return merged


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list) and depth < 3:
        return len(value) < 10_000 and all(_is_plain(item, depth + 1) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float) else f"{type(value).__name__}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value[:5]):
        text = ", ".join(repr(item[:80]) for item in value[:5])
    if isinstance(value, dict):
        text = ", ".join(repr(str(key)[:80]) for key in list(value)[:5])
    return text[:200]
