"""Loading a configuration: a file, then `key.sub=value` overrides, then command-line options; later wins.

Every mistake is reported at once, one line each, and nothing that a configuration says is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from policykd.spine.config.messages import Path as KeyPath
from policykd.spine.config.messages import problems, section_of
from policykd.spine.config.schema import Config, TrainConfig
from policykd.spine.config.yaml_io import dump_yaml, parse_yaml, read_yaml
from policykd.spine.errors import ConfigError, InputError

AnyConfig = TypeVar("AnyConfig", Config, TrainConfig)

OPTIONS: dict[str, KeyPath] = {
    "teacher": ("teacher",),
    "vec_normalize": ("vec_normalize",),
    "env": ("env", "id"),
    "allow_import": ("env", "allow_import"),
    "trust": ("trust",),
    "seed": ("seed",),
    "device": ("device",),
    "keep": ("gate", "keep"),
    "margin": ("gate", "margin"),
    "max_params": ("search", "max_params"),
    "max_bytes": ("search", "max_bytes"),
    "max_us": ("search", "max_us"),
    "deterministic": ("evaluate", "deterministic"),
    "timesteps": ("rollout", "timesteps"),
    "student": ("collect", "student"),
    "minari": ("collect", "minari"),
    "trials": ("tune", "trials"),
    "timeout": ("tune", "timeout"),
}
"""The key that each command-line option sets."""

_KEY = re.compile(r"\w+(\.\w+)*\Z")


def load_config(
    path_or_name: str | None = None,
    overrides: Iterable[str] = (),
    cli: Mapping[str, Any] | None = None,
    *,
    vouched: bool = False,
    keep: float | None = None,
) -> Config:
    """The configuration of a distillation; `cli` holds the options of `OPTIONS` (None: not given), `keep` is the
    retention to demand where none of them says one.

    InputError where only the file says `trust: true`, which lets a teacher's file run code, or
    `env.allow_import: true`, which lets a name import a package: the user must say it too, or vouch for the file.
    """
    return _load(Config, path_or_name, overrides, cli or {}, vouched=vouched, keep=keep)


def load_train_config(
    path_or_name: str | None = None, overrides: Iterable[str] = (), cli: Mapping[str, Any] | None = None
) -> TrainConfig:
    """The configuration that trains a teacher; as `load_config`."""
    return _load(TrainConfig, path_or_name, overrides, cli or {})


def resolved_yaml(config: Config | TrainConfig) -> str:
    """The complete configuration as YAML, in the schema's order; `load_config` reads it back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def shipped_folder() -> Path:
    """Where the shipped configurations lie: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[2]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped_names() -> list[str]:
    """The names that `--config` takes, such as `cartpole` and `teachers/pendulum`."""
    folder = shipped_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find_config(path_or_name: str) -> Path:
    """The file that `--config` means: a path, or else a shipped configuration by name."""
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    names = shipped_names()
    if path_or_name in names:
        return shipped_folder() / f"{path_or_name}.yaml"
    close = get_close_matches(path_or_name, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"shipped are {', '.join(names)}"
    what = "is a folder, not a file" if path.is_dir() else "no such file, and no shipped configuration of that name"
    raise InputError(f"--config {path_or_name}: {what}; {hint}")


def _load(
    model: type[AnyConfig],
    source: str | None,
    overrides: Iterable[str],
    cli: Mapping[str, Any],
    *,
    vouched: bool = False,
    keep: float | None = None,
) -> AnyConfig:
    layers = _Layers(model)
    if source is not None:
        path = find_config(source)
        layers.add_file(read_yaml(path), str(path))
    for text in overrides:
        layers.add_override(text)
    for option, value in cli.items():
        if option == "teacher" and isinstance(value, list):
            layers.put_teachers(value)
        elif value is not None:
            layers.put(OPTIONS[option], value, f"--{option.replace('_', '-')}")
    gate = layers.data.get("gate") or {}
    if keep is not None and isinstance(gate, dict) and gate.get("keep") is None:
        layers.put(("gate", "keep"), keep, "--keep")
    try:
        config = model.model_validate(layers.data)
    except ValidationError as error:
        raise ConfigError(layers.problems + problems(error, model, layers.data, layers.name_of)) from error
    if layers.problems:
        raise ConfigError(layers.problems)
    if not vouched:
        _check_word(config, layers)
    return config


def _check_word(config: Config | TrainConfig, layers: _Layers) -> None:
    """InputError where only the file allows what could run code."""
    if getattr(config, "trust", False) and ("trust",) not in layers.names:
        raise InputError(
            f"{layers.file}: trust: true lets the teacher's file run code, and a configuration alone may not allow "
            "that: add --trust if you made the teacher, or take trust out of the file"
        )
    if config.env.allow_import and ("env", "allow_import") not in layers.names:
        raise InputError(
            f"{layers.file}: env.allow_import: true lets the names in the file import packages, and a configuration "
            "alone may not allow that: add --allow-import (with --resume: --trust) if you trust them"
        )


class _Layers:
    """The merged mapping, and for each key that did not come from the file, what the user typed."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self.file: str | None = None
        self.data: dict[str, Any] = {}
        self.names: dict[KeyPath, str] = {}
        self.problems: list[str] = []

    def add_file(self, data: dict[str, Any], file: str) -> None:
        """Start from a file. A section left empty (`env:` with everything below commented out) means its defaults."""
        sign, command = ("algo", "train") if self.model is Config else ("teacher", "distill")
        if sign in data:
            raise InputError(f"{file}: this is a configuration of `policykd {command}` (it has the key {sign})")
        self.file = file
        fields = self.model.model_fields
        self.data = {k: v for k, v in data.items() if v is not None or k not in fields or not section_of(fields[k])}

    def add_override(self, text: str) -> None:
        """Apply `key.sub=value`; the value is read as YAML."""
        key, equals, value = text.partition("=")
        if not equals or not _KEY.match(key):
            self.problems.append(f"{text!r} is not an override: write key.sub=value (a teacher goes after --teacher)")
            return
        try:
            self.put(tuple(key.split(".")), parse_yaml(value, text), key)
        except InputError as error:
            self.problems.append(str(error))

    def put(self, path: KeyPath, value: Any, name: str) -> None:
        """Set one key; a mapping is merged into a section and replaces anything else."""
        if isinstance(value, str) and (shorthand := getattr(self._section(path), "shorthand", None)):
            path = (*path, shorthand)
        target = self.data
        for depth, part in enumerate(path[:-1], start=1):
            below = target.setdefault(part, {})
            if not isinstance(below, dict):
                inner = ".".join(path[:depth])
                self.problems.append(f"{name}: {inner} is a value ({below!r}), not a section: set {inner} itself")
                return
            target[part] = target = dict(below)
        if isinstance(value, dict) and self._section(path) is not None:
            for key, inner_value in value.items():
                self.put((*path, key), inner_value, f"{name}.{key}")
        else:
            target[path[-1]] = value
            self.names[path] = name

    def put_teachers(self, sources: list[str]) -> None:
        """The first --teacher, and the others, which make it an ensemble; one alone leaves the file's others."""
        self.put(OPTIONS["teacher"], sources[0], "--teacher")
        if len(sources) > 1:
            self.put(("ensemble", "teachers"), sources[1:], "--teacher")

    def _section(self, path: KeyPath) -> type[BaseModel] | None:
        """The section that stands at `path`, if one does."""
        current: type[BaseModel] | None = self.model
        for part in path:
            if current is None or part not in current.model_fields:
                return None
            current = section_of(current.model_fields[part])
        return current

    def name_of(self, path: KeyPath) -> str:
        """What a key is called where the user wrote it: an option, an override, or its place in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.names:
                return self.names[path[:length]] + "".join(f".{part}" for part in path[length:])
        mixed = any(name[: len(path)] == path for name in self.names)  # an override set something inside
        return ": ".join(part for part in (None if mixed else self.file, ".".join(path)) if part)
