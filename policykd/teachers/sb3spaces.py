"""Spaces of a stable-baselines3 zip, old gym's or gymnasium's, rebuilt from what the file says in plain.

The exact bounds stand in the serialised field, which is decoded as data; the printed ones, rounded and shortened by
numpy, are used where that field cannot be read.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.errors import InputError
from policykd.teachers.pickledarrays import MAX_DIMS, Budget, as_array, as_dict, as_dtype, as_state, is_array, kind_of
from policykd.teachers.pickledata import MAX_FIELD_OPCODES, DecodeError, decode

if TYPE_CHECKING:
    from gymnasium import Space

Array = NDArray[Any]

MAX_SIZE = 4_000_000  # numbers in one observation; four colour images of 480 x 640 have 3.7 million
MAX_ACTION = 10_000  # numbers in one action, or choices in one observation
MAX_ENTRIES = 1_000  # of a Dict
_MAX_MADE = 20 * MAX_SIZE  # bytes of the bounds of one space: two of eight a number, and a few
_MAX_PRINT = 2**16  # characters; numpy prints at most 1000 numbers
_KINDS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
_DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
_REMEDY = "save the model again with stable-baselines3"


def read_space(entry: Any, field: str, name: str) -> Space[Any]:
    """The space in `field` (observation_space, action_space) of the file called `name`; InputError if it has none."""
    kind = _kind(entry)
    if kind in ("Dict", "Tuple") and field == "observation_space":
        return _compound(entry, kind, field, name)
    if kind not in _KINDS:
        raise InputError(
            f"{name}: {field} is {kind!r}, which is not supported yet: expected one of {', '.join(_KINDS)}; use a "
            "teacher with such a space"
        )
    facts = dict(entry) | _serialised(entry, kind)
    try:
        space = _build(kind, facts)
        if field == "action_space" and math.prod(space.shape or ()) > MAX_ACTION:
            raise ValueError(f"more than {MAX_ACTION} numbers in one action")
        return space
    except (DecodeError, ValueError, TypeError, KeyError, AssertionError, OverflowError) as error:
        found = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"{name}: {field} ({kind}) cannot be read: {found}; {_REMEDY}") from error


def _kind(entry: Any) -> str:
    """The class name in `<class 'gymnasium.spaces.box.Box'>`."""
    text = entry.get(":type:") if isinstance(entry, dict) else None
    return (
        text.removeprefix("<class '").removesuffix("'>").rpartition(".")[2][:80] if isinstance(text, str) else "missing"
    )


def _decoded(text: Any) -> Any:
    return decode(base64.b64decode(text, validate=True), max_opcodes=MAX_FIELD_OPCODES)


def _serialised(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    """The attributes in the serialised field that are numbers or arrays; none where the field is not readable."""
    try:
        return _numeric(as_state(_decoded(entry[":serialized:"]), kind), Budget(_MAX_MADE, "bounds"))
    except (KeyError, TypeError, ValueError, binascii.Error, DecodeError):
        return {}


def _compound(entry: dict[str, Any], kind: str, field: str, name: str) -> Space[Any]:
    """A Dict, from the serialised field alone: its print holds no exact bounds."""
    from gymnasium import spaces

    try:
        tree = _decoded(entry[":serialized:"])
        if kind == "Tuple":
            raise DecodeError("Tuple observations, which stable-baselines3 does not take")
        inner = as_dict(as_state(tree, kind).get("spaces"))
        if not inner or len(inner) > MAX_ENTRIES or not all(isinstance(key, str) for key in inner):
            raise DecodeError(f"a Dict of {len(inner)} entries, expected names and at most {MAX_ENTRIES}")
        budget = Budget(_MAX_MADE, "bounds")
        built = {key: _from_tree(value, budget) for key, value in inner.items()}
        if sum(math.prod(space.shape or ()) for space in built.values()) > MAX_SIZE:
            raise DecodeError(f"more than {MAX_SIZE} numbers in one observation")
        return spaces.Dict(OrderedDict(built))
    except (DecodeError, ValueError, TypeError, KeyError, AssertionError, OverflowError) as error:
        found = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"{name}: {field} ({kind}) cannot be read: {found}; {_REMEDY}") from error


def _from_tree(tree: Any, budget: Budget) -> Space[Any]:
    """A simple space out of a decoded Dict."""
    for kind in _KINDS:
        try:
            state = as_state(tree, kind)
        except DecodeError:
            continue
        facts = _numeric(state, budget)
        shape = state.get("_shape", state.get("shape"))
        if isinstance(state.get("n"), tuple | list):
            facts["n"] = list(state["n"])
        facts["_shape"] = list(shape) if isinstance(shape, tuple | list) else shape
        if kind == "Box":
            facts["dtype"] = str(as_dtype(state.get("dtype")))
        return _build(kind, facts)
    raise DecodeError(f"expected one of {', '.join(_KINDS)}, found {kind_of(tree)}")


def _numeric(state: dict[Any, Any], budget: Budget) -> dict[str, Any]:
    """Those attributes that are numbers or arrays; DecodeError for an array that is damaged or too large."""
    found = {key: state.get(key) for key in ("low", "high", "n", "nvec", "start")}
    return {key: as_array(tree, budget) for key, tree in found.items() if isinstance(tree, int) or is_array(tree)}


def _build(kind: str, facts: dict[str, Any]) -> Space[Any]:
    from gymnasium import spaces

    if kind == "Box":
        return _box(facts)
    if kind == "Discrete":
        return spaces.Discrete(_integer(facts["n"]), start=_integer(facts.get("start", 0)))
    if kind == "MultiDiscrete":
        nvec = _numbers(facts["nvec"], None).astype(np.int64)
        if nvec.size > MAX_ACTION:
            raise ValueError(f"{nvec.size} choices, more than the limit of {MAX_ACTION}")
        start = _numbers(facts["start"], nvec.shape).astype(np.int64) if facts.get("start") is not None else None
        return spaces.MultiDiscrete(nvec, start=start)
    shape = _shape(facts.get("n", facts.get("_shape")))
    return spaces.MultiBinary(shape if len(shape) != 1 else shape[0])


def _box(facts: dict[str, Any]) -> Space[Any]:
    from gymnasium import spaces

    shape = _shape(facts.get("_shape", facts.get("shape")))
    dtype = facts.get("dtype")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {str(dtype)[:40]!r}")
    low, high = _numbers(facts["low"], shape).astype(dtype), _numbers(facts["high"], shape).astype(dtype)
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError("bounds that are NaN")
    return spaces.Box(low, high, shape, np.dtype(dtype).type)


def _numbers(value: Any, shape: tuple[int, ...] | None) -> Array:
    """An array, from an array or from numpy's print of one; ValueError for a print that was shortened."""
    if isinstance(value, list | int | float):
        array = np.asarray(value, np.float64)
    elif isinstance(value, str):
        if "..." in value or len(value) > _MAX_PRINT:
            raise ValueError("printed bounds are shortened, and the serialised ones cannot be read")
        array = np.asarray([float(token) for token in value.replace("[", " ").replace("]", " ").split()], np.float64)
    else:
        array = np.asarray(value)
    return array if shape is None else array.reshape(shape)


def _integer(value: Any) -> int:
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iuU":
        raise ValueError("expected one integer")
    return int(array)


def _shape(value: Any) -> tuple[int, ...]:
    """Sizes, none negative; bounded before they are multiplied."""
    sizes = _list(value)
    if len(sizes) > MAX_DIMS:
        raise ValueError(f"a shape of {len(sizes)} dimensions")
    shape = tuple(_integer(size) for size in sizes)
    if any(size < 0 or size > MAX_SIZE for size in shape) or math.prod(size or 1 for size in shape) > MAX_SIZE:
        raise ValueError(f"shape {shape} is negative or larger than {MAX_SIZE}")
    return shape


def _list(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return list(value.ravel()[: MAX_DIMS + 1])
    if isinstance(value, list):
        return value
    if isinstance(value, int):
        return [value]
    raise ValueError("a malformed shape")
