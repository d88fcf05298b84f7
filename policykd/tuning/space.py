"""What is tried: settings by their keys, each with its choices or its range, all of them valid in themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import ValidationError

from policykd.spine.config.messages import dotted_paths, problems, suggestion
from policykd.spine.config.schema import Config
from policykd.spine.errors import ConfigError, InputError, brief

Value: TypeAlias = "bool | int | float | str | None"

_SECTIONS = ("loss.", "rollout.", "update.")
_NEVER = ("rollout.timesteps", "rollout.beta", "rollout.kernel")
_MORE = ("data.max_states", "data.weighting", "student.activation", "student.conv")
_OF_A_FAMILY = ("student.width", "student.depth", "student.channels", "student.seeds")
_FOLLOWS = ("rollout.n_envs", "rollout.n_steps", "rollout.rounds")  # rollout.timesteps is their product
_RANGE = {"low", "high", "log"}


@dataclass(frozen=True)
class Knob:
    """One setting: `choices`, or else numbers from `low` to `high`, `log`-uniform or uniform, `whole` or not."""

    key: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def holds(self, value: Value) -> bool:
        """Whether it may take this value."""
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        return isinstance(value, int | float) and self.low <= value <= self.high


def space_of(config: Config) -> list[Knob]:
    """The knobs of `tune.space`, or the default ones; InputError for what cannot be tuned, or would be refused."""
    assert config.tune is not None
    if not config.tune.space:
        knobs = default_space(config)
        if not knobs:
            raise InputError("tune.space: none, and a tree that learns from data.dir has no default: say what is tried")
        return knobs
    known = {".".join(path) for path in dotted_paths(Config)}
    return [_knob(config, key, entry, known) for key, entry in config.tune.space.items()]


def default_space(config: Config) -> list[Knob]:
    """What is worth trying where nothing is said; `config` has no `auto` in what is tried."""
    knobs = [] if config.student.kind == "tree" else _of_descent(config)
    if config.data.dir is None:
        knobs.append(
            Knob("rollout.beta.schedule", _with(config.rollout.beta.schedule, "first_round", "linear", "exponential"))
        )
    return knobs


def _of_descent(config: Config) -> list[Knob]:
    """Of students that follow a loss, as a tree does not."""
    update = config.update
    updates = update.n_updates if isinstance(update.n_updates, int) else 400
    knobs = [
        Knob("update.learning_rate", low=1e-3, high=3e-2, log=True),
        Knob("update.n_updates", low=max(updates // 4, 1), high=2 * updates, log=True, whole=True),
        Knob("update.batch_size", _with(update.batch_size, 128, 256, 512)),
    ]
    if config.loss.kind not in ("mse", "huber"):  # which have no temperature
        knobs.append(Knob("loss.kind", _with(config.loss.kind, "forward_kl", "reverse_kl")))
        if config.loss.convention != "untempered" and not isinstance(config.loss.temperature, list):
            knobs.append(Knob("loss.temperature", low=0.5, high=4.0, log=True))
    if config.student.kind != "gru":
        knobs.append(Knob("student.activation", _with(config.student.activation, "tanh", "relu")))
    return knobs


def current(config: Config, knobs: list[Knob]) -> dict[str, Value]:
    """The values that the configuration has now, of the knobs that hold them."""
    found = {knob.key: _at(config, knob.key) for knob in knobs}
    return {knob.key: found[knob.key] for knob in knobs if knob.holds(found[knob.key])}


def applied(config: Config, values: Mapping[str, Value]) -> Config:
    """The configuration of one trial. ConfigError where the values do not go together."""
    document = config.model_dump(mode="json")
    for key, value in values.items():
        *sections, last = key.split(".")
        place = document
        for section in sections:
            place = place[section]
        place[last] = value
    rollout = document["rollout"]
    if any(key in values for key in _FOLLOWS):
        sizes = [rollout[key.split(".")[1]] for key in _FOLLOWS]
        rollout["timesteps"] = sizes[0] * sizes[1] * sizes[2] if all(isinstance(n, int) for n in sizes) else "auto"
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        lines = problems(error, Config, document, lambda path: ": ".join(["tune.space", ".".join(path)]))
        raise ConfigError(lines) from None


def _knob(config: Config, key: str, entry: Any, known: set[str]) -> Knob:
    where = f"tune.space: {brief(key, 80)}"
    if key not in known:
        raise InputError(f"{where}: unknown key; {suggestion(tuple(key.split('.')), Config)}")
    if key in _OF_A_FAMILY:
        raise InputError(f"{where}: a family covers it: give {key} a list, and every trial trains all of them at once")
    tunable = key.startswith(_SECTIONS) and key not in _NEVER
    if not tunable and key not in _MORE:
        raise InputError(f"{where}: cannot be tuned; what can: loss.*, rollout.*, update.*, {', '.join(_MORE)}")
    knob = _parsed(where, key, entry)
    ends: tuple[Value, ...] = knob.choices
    if not ends:
        whole = type(entry["low"]) is int and type(entry["high"]) is int and not _accepts(config, key, knob.low + 0.5)
        knob = Knob(key, low=knob.low, high=knob.high, log=knob.log, whole=whole)
        ends = (int(knob.low), int(knob.high)) if whole else (knob.low, knob.high)
    for end in ends:
        applied(config, {key: end})
    return knob


def _parsed(where: str, key: str, entry: Any) -> Knob:
    if isinstance(entry, list) and entry and all(isinstance(c, bool | int | float | str | None) for c in entry):
        return Knob(key, tuple(entry))
    if isinstance(entry, dict) and {"low", "high"} <= entry.keys() <= _RANGE:
        low, high, log = entry["low"], entry["high"], entry.get("log", False)
        numbers = all(type(end) in (int, float) for end in (low, high)) and isinstance(log, bool)
        if numbers and low < high and (low > 0 or not log):
            return Knob(key, low=float(low), high=float(high), log=log)
    raise InputError(
        f"{where}: found {brief(entry, 80)}, expected a list of values, or {{low: number, high: number, log: true}} "
        "with low below high (and above 0 with log)"
    )


def _accepts(config: Config, key: str, value: Value) -> bool:
    try:
        applied(config, {key: value})
    except ConfigError:
        return False
    return True


def _at(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _with(now: Value, *choices: Value) -> tuple[Value, ...]:
    return choices if now in choices else (now, *choices)
