"""Running statistics of observations: VecNormalize's, read as data, and applied with its bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.spine.errors import InputError, brief
from policykd.spine.files import refuse_device
from policykd.spine.packing import Leaf
from policykd.spine.types import TeacherInfo
from policykd.teachers.jsondata import read_json
from policykd.teachers.pickledarrays import Budget, as_array, as_state, kind_of
from policykd.teachers.pickledata import Call, DecodeError, decode

Array = NDArray[np.float64]

FORMAT = 1
_MAX_BYTES = 128 * 2**20
_MAX_JSON = 16 * 2**20
_MAX_VALUES = 2_000_000  # of a JSON document
_MAX_MADE = 64 * 2**20  # bytes of all statistics together, in double precision
_MAX_KEYS = 1_000  # of a Dict observation
_REMEDY = "save it again with VecNormalize.save, or pass another file as vec_normalize"


@dataclass(frozen=True, eq=False)
class Normalizer:
    """clip((x - mean) / sqrt(var + epsilon), -clip, clip) in float64, then float32.

    `mean` and `var` are float64 of the observation's shape; `std` is sqrt(var + epsilon).
    """

    mean: Array
    var: Array
    epsilon: float = 1e-8
    clip: float = 10.0

    @property
    def std(self) -> Array:
        """sqrt(var + epsilon), float64."""
        return np.asarray(np.sqrt(self.var + self.epsilon))

    @property
    def constants(self) -> int:
        """How many numbers the normaliser holds: a mean and a deviation per entry."""
        return 2 * self.mean.size

    def tensors(self, device: torch.device) -> TensorNormalizer:
        """The same on tensors of `device`."""
        mean, std = torch.tensor(self.mean, device=device), torch.tensor(self.std, device=device)
        return TensorNormalizer(mean, std, self.clip)

    def to_json(self) -> dict[str, Any]:
        """A JSON document from which `normalizer_from_json` makes an equal object, to the last bit."""
        return {
            "format": FORMAT,
            "mean": self.mean.tolist(),
            "var": self.var.tolist(),
            "clip_obs": self.clip,
            "epsilon": self.epsilon,
        }


@dataclass(frozen=True, eq=False)
class KeyedNormalizer:
    """Statistics of some entries of a Dict observation (VecNormalize's norm_obs_keys); the others stay as they are."""

    parts: dict[str, Normalizer]

    @property
    def constants(self) -> int:
        """How many numbers all parts hold."""
        return sum(part.constants for part in self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON document from which `normalizer_from_json` makes an equal object, to the last bit."""
        return {"format": FORMAT, "keys": {key: part.to_json() for key, part in self.parts.items()}}


Statistics = Normalizer | KeyedNormalizer


@dataclass(frozen=True)
class TensorNormalizer:
    """`Normalizer` on a device."""

    mean: Tensor
    std: Tensor
    clip: float

    def __call__(self, observation: Tensor) -> Tensor:
        """float32 [B, *shape] for raw observations [B, *shape] of any numeric dtype."""
        scaled = (observation.double() - self.mean) / self.std
        return torch.clamp(scaled, -self.clip, self.clip).float()


def by_leaf(
    normalizer: Normalizer | KeyedNormalizer | None, leaves: Sequence[Leaf], info: TeacherInfo, device: torch.device
) -> dict[int, TensorNormalizer]:
    """The statistics of each of the leaves that has some; InputError where they do not fit."""
    if normalizer is None:
        return {}
    keyed = normalizer.parts if isinstance(normalizer, KeyedNormalizer) else {"": normalizer}
    names = [".".join(map(str, leaf.path)) for leaf in leaves]
    remedy = "pass the vecnormalize.pkl that was saved with this teacher"
    if not keyed.keys() <= set(names):
        raise InputError(
            f"{info.source}: statistics are for {brief(', '.join(sorted(keyed)), 80) or 'one array'}, but the teacher "
            f"observes {brief(', '.join(names), 80) or 'one array'}: {remedy}"
        )
    for name, leaf in zip(names, leaves, strict=True):
        if name in keyed and keyed[name].mean.shape != leaf.shape:
            raise InputError(
                f"{info.source}: statistics {name[:80]!r} are for observations of shape {keyed[name].mean.shape}, but "
                f"the teacher takes {leaf.shape}: {remedy}"
            )
    return {index: keyed[name].tensors(device) for index, name in enumerate(names) if name in keyed}


def read_normalizer(path: Path) -> Statistics | None:
    """Statistics from `vecnormalize.pkl` or our `normalizer.json`; None where observations are not normalised.

    InputError for a missing, damaged or foreign file.
    """
    refuse_device(path)
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}), expected observation statistics; {_REMEDY}"
        ) from error
    if data is None:
        raise InputError(f"{path}: more than {_MAX_BYTES} bytes, expected observation statistics; {_REMEDY}")
    if path.suffix == ".json":
        if len(data) > _MAX_JSON:
            raise InputError(f"{path}: more than {_MAX_JSON} bytes, expected a mean and a variance; {_REMEDY}")
        return _from_json_bytes(data, str(path))
    try:
        return _from_pickle(data, str(path))
    except DecodeError as error:
        raise InputError(f"{path}: no readable VecNormalize statistics: {error}; {_REMEDY}") from error


def normalizer_from_json(doc: Any, name: str) -> Statistics:
    """The inverse of `Normalizer.to_json`; `name` is how messages call the document."""
    try:
        if doc["format"] != FORMAT:
            raise InputError(f"{name}: format {brief(doc['format'])}, expected {FORMAT}: use a newer policykd")
        if "keys" in doc:
            return KeyedNormalizer({str(key): _one_from_json(part, name) for key, part in doc["keys"].items()})
        return _one_from_json(doc, name)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(
            f"{name}: no normaliser document ({type(error).__name__}: {brief(error)}); {_REMEDY}"
        ) from error


def _one_from_json(doc: Any, name: str) -> Normalizer:
    mean, var = np.asarray(doc["mean"], np.float64), np.asarray(doc["var"], np.float64)
    return _checked(Normalizer(mean, var, float(doc["epsilon"]), float(doc["clip_obs"])), name)


def _from_json_bytes(data: bytes, name: str) -> Statistics:
    try:
        doc = read_json(data, _MAX_VALUES)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not readable as JSON ({brief(error)}); {_REMEDY}") from error
    return normalizer_from_json(doc, name)


def _from_pickle(data: bytes, name: str) -> Statistics | None:
    state = as_state(decode(data, max_bytes=_MAX_BYTES), "VecNormalize")
    if state.get("norm_obs", True) is False:
        return None
    statistics = state.get("obs_rms")
    budget = Budget(_MAX_MADE, "statistics")
    limits = _number(state, "clip_obs", budget), _number(state, "epsilon", budget)
    if isinstance(statistics, dict):
        if not 0 < len(statistics) <= _MAX_KEYS or not all(isinstance(key, str) for key in statistics):
            raise DecodeError(f"statistics of a Dict observation, expected 1 to {_MAX_KEYS} names")
        keys = _keys(state, list(statistics))
        return KeyedNormalizer({key: _checked(_moments(statistics[key], limits, budget), name) for key in keys})
    if not isinstance(statistics, Call):
        raise DecodeError(f"statistics of {kind_of(statistics)} observations")
    return _checked(_moments(statistics, limits, budget), name)


def _keys(state: dict[Any, Any], known: list[str]) -> list[str]:
    wanted = state.get("norm_obs_keys")
    if wanted is None:
        return known
    named = set(known)
    if not isinstance(wanted, list) or not all(isinstance(key, str) and key in named for key in wanted):
        raise DecodeError("norm_obs_keys that are no keys of the statistics")
    chosen = set(wanted)
    return [key for key in known if key in chosen]


def _moments(tree: Any, limits: tuple[float, float], budget: Budget) -> Normalizer:
    """One mean and variance, with the limits (clip, epsilon)."""
    moments = as_state(tree, "RunningMeanStd")
    mean, var = (as_array(moments.get(key), budget).astype(np.float64) for key in ("mean", "var"))
    return Normalizer(mean, var, limits[1], limits[0])


def _number(state: dict[Any, Any], key: str, budget: Budget) -> float:
    value = as_array(state.get(key), budget)
    if value.shape != ():
        raise DecodeError(f"{key} is no number")
    return float(value)


def _checked(normalizer: Normalizer, name: str) -> Normalizer:
    if normalizer.mean.shape != normalizer.var.shape:
        raise InputError(f"{name}: mean {normalizer.mean.shape} and variance {normalizer.var.shape} differ; {_REMEDY}")
    finite = (
        np.isfinite(normalizer.mean).all() and np.isfinite(normalizer.var).all() and math.isfinite(normalizer.epsilon)
    )
    if (
        not finite
        or math.isnan(normalizer.clip)
        or normalizer.clip <= 0
        or np.any(normalizer.var + normalizer.epsilon <= 0)
    ):
        raise InputError(f"{name}: NaN, infinite or negative statistics: the file is damaged; {_REMEDY}")
    return normalizer
