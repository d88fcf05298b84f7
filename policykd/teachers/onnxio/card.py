"""The YAML beside an ONNX file, which says what the file does not: environment, spaces, what the outputs mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from policykd.spine.config.messages import problems
from policykd.spine.config.section import Section
from policykd.spine.config.yaml_io import read_yaml
from policykd.spine.errors import ConfigError, InputError

if TYPE_CHECKING:
    from gymnasium import Space

MAX_ENTRIES = 2**18  # of an observation, of an action, of one choice
_EXAMPLE = "{env: CartPole-v1, action_space: {type: Discrete, n: 2}, outputs: {logits: NAME}}"

Size = Annotated[int, Field(ge=1, le=MAX_ENTRIES)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=8)]
Start = Annotated[int, Field(ge=-(2**31), le=2**31)]
Number = Annotated[float, Field(allow_inf_nan=True)]
Bound = Number | Annotated[list[Number], Field(min_length=1, max_length=MAX_ENTRIES)]


class ObservationSpace(Section):
    """Raw observations."""

    type: Literal["Box"] = "Box"
    shape: Sizes
    """Of one observation."""
    low: Bound = -math.inf
    """One bound for all entries, or a flat list."""
    high: Bound = math.inf


class ActionSpace(Section):
    """Of the environment. Discrete: n, start. MultiDiscrete: nvec, start. MultiBinary: n. Box: shape, low, high."""

    type: Literal["Discrete", "MultiDiscrete", "MultiBinary", "Box"]
    n: Size | None = None
    nvec: Annotated[list[Size], Field(min_length=1, max_length=1000)] | None = None
    start: Start | Annotated[list[Start], Field(min_length=1, max_length=1000)] | None = None
    """The first action, or that of each choice; without it 0. The environment is given start + the choice's place."""
    shape: Sizes | None = None
    low: Bound | None = None
    high: Bound | None = None


class Outputs(Section):
    """Names of the file's outputs: mean and log_std, or logits, or q_values, or action, alone."""

    mean: str | None = None
    log_std: str | None = None
    logits: str | None = None
    q_values: str | None = None
    action: str | None = None


class Card(Section):
    """What a YAML beside an ONNX file says."""

    env: str | None = None
    """A registered environment id; without it, --env."""
    input: str | None = None
    """The file's input for observations; without it, its only one."""
    observation_space: ObservationSpace | None = None
    """Without it, a Box of the input's shape."""
    action_space: ActionSpace
    outputs: Outputs
    distribution: Literal["categorical", "multi_categorical", "bernoulli", "gaussian", "squashed_gaussian"] | None = (
        None
    )
    """Without it, the usual one of the action space."""
    squashed: bool = False
    """Whether actions are the tanh of samples of mean and log_std (SAC): the same as distribution squashed_gaussian."""
    unscale: bool | None = None
    """Whether actions lie in [-1, 1] and are stretched to the bounds of the Box; without it, if squashed."""
    normalised_inside: bool = True
    """Whether the file takes raw observations; false asks for statistics (--vec-normalize)."""

    @property
    def kind(self) -> Literal["policy", "value", "deterministic"]:
        """Which kind of teacher the outputs make."""
        if self.outputs.q_values is not None:
            return "value"
        return "deterministic" if self.outputs.action is not None else "policy"

    @property
    def stated(self) -> str | None:
        """The name of the distribution, where the card says one."""
        return "squashed_gaussian" if self.squashed else self.distribution

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs in the order of the parameters; the first one is that of the means."""
        o = self.outputs
        return tuple(name for name in (o.mean, o.log_std, o.logits, o.q_values, o.action) if name is not None)


def read_card(path: Path) -> tuple[Card, str]:
    """The card of the ONNX file `path`, and where it was found; InputError where it is missing, ConfigError with one
    line for each mistake in it."""
    beside = [path.with_name(path.name + ".yaml"), path.with_suffix(".yaml")]
    found = next((file for file in beside if file.is_file()), None)
    if found is None:
        raise InputError(
            f"{path}: needs {beside[1].name} beside it, which says what its outputs mean: write one, for example "
            f"{_EXAMPLE} (docs/teachers.md)"
        )
    data = read_yaml(found)
    try:
        card = Card.model_validate(data)
    except ValidationError as error:
        lines = problems(error, Card, data, lambda key: f"{found}: {'.'.join(key)}")
        raise ConfigError(lines) from error
    _check(card, str(found))
    return card, str(found)


def _check(card: Card, name: str) -> None:
    given = {key for key, value in card.outputs.model_dump().items() if value is not None}
    if given not in ({"mean", "log_std"}, {"logits"}, {"q_values"}, {"action"}):
        listed = ", ".join(sorted(given)) or "none"
        raise InputError(
            f"{name}: outputs: found {listed}, expected mean and log_std, or logits, or q_values, or action (a "
            "deterministic teacher)"
        )
    if len(set(card.names)) < len(card.names):
        raise InputError(f"{name}: outputs: mean and log_std are one output, expected two: export them apart")
    if card.squashed and (given != {"mean", "log_std"} or card.distribution == "gaussian"):
        raise InputError(f"{name}: squashed: true is for mean and log_std before the tanh: leave it out")
    gaussian = card.action_space.type == "Box"
    if gaussian != bool(given & {"mean", "action"}):
        wanted = "mean and log_std, or action" if gaussian else "logits or q_values"
        raise InputError(f"{name}: outputs: actions of a {card.action_space.type} are made of {wanted}")


def observation_box(card: Card, name: str) -> Space[Any] | None:
    """The observation space that the card states, or None."""
    space = card.observation_space
    return None if space is None else _box(space.shape, space.low, space.high, f"{name}: observation_space")


def action_space(card: Card, name: str) -> Space[Any]:
    """The environment's action space; InputError for keys that do not belong to its type."""
    from gymnasium import spaces

    doc, where = card.action_space, f"{name}: action_space"
    keys = {"Discrete": {"n"}, "MultiDiscrete": {"nvec"}, "MultiBinary": {"n"}, "Box": {"shape", "low", "high"}}
    given = {key for key, value in doc.model_dump().items() if value is not None and key != "type"}
    if given - ({"start"} if doc.type in ("Discrete", "MultiDiscrete") else set()) != keys[doc.type]:
        expected = ", ".join(sorted(keys[doc.type]))
        raise InputError(f"{where}: a {doc.type} with {', '.join(sorted(given)) or 'nothing'}, expected {expected}")
    if doc.nvec is not None:
        first = [0] * len(doc.nvec) if doc.start is None else doc.start
        if not isinstance(first, list) or len(first) != len(doc.nvec):
            found = f"{len(first)} numbers" if isinstance(first, list) else "one number"
            raise InputError(f"{where}.start: found {found}, expected a list of {len(doc.nvec)}, one for each choice")
        return spaces.MultiDiscrete(doc.nvec, start=first)
    if doc.n is not None and doc.type == "MultiBinary":
        return spaces.MultiBinary(doc.n)
    if doc.n is not None:
        if isinstance(doc.start, list):
            raise InputError(f"{where}.start: found a list, expected one whole number, the first action")
        return spaces.Discrete(doc.n, start=doc.start or 0)
    assert doc.shape is not None and doc.low is not None and doc.high is not None
    return _box(doc.shape, doc.low, doc.high, where)


def _box(shape: list[int], low: Bound, high: Bound, where: str) -> Space[Any]:
    from gymnasium import spaces

    size = math.prod(shape)
    if size > MAX_ENTRIES:
        raise InputError(f"{where}.shape: {shape} has {size} entries, expected at most {MAX_ENTRIES}")
    bounds = []
    for key, bound in (("low", low), ("high", high)):
        flat = np.asarray(bound if isinstance(bound, list) else [bound] * size, np.float64)
        if flat.size != size or np.isnan(flat).any():
            raise InputError(f"{where}.{key}: found {flat.size} numbers, expected {size} that are no NaN, or one")
        with np.errstate(over="ignore"):
            bounds.append(flat.reshape(shape).astype(np.float32))
    if np.any(bounds[0] > bounds[1]):
        raise InputError(f"{where}: low is above high: correct the bounds")
    return spaces.Box(bounds[0], bounds[1], tuple(shape), np.float32)
