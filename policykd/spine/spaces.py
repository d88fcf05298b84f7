"""Gymnasium spaces as JSON and back. Gymnasium is imported only where a space object is made or taken apart."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from policykd.spine.actions import DTYPES, ActionMap, sizes_of
from policykd.spine.errors import InputError, brief, clipped

if TYPE_CHECKING:
    from gymnasium import Space

SpaceDoc = dict[str, Any]
_MAX_DEPTH = 16


def encode_space(space: Space[Any], *, bounds: bool = True) -> SpaceDoc:
    """The space as a JSON document; InputError for a kind that has no such form.

    Without `bounds` the low and high of a Box are left out, which is all that is long in it.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        outline = {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype)}
        return outline | {"low": _bounds(space.low), "high": _bounds(space.high)} if bounds else outline
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        inner = {key: encode_space(sub, bounds=bounds) for key, sub in space.spaces.items()}
        doc: SpaceDoc = {"type": "Dict", "spaces": inner}
        if list(space.spaces) != sorted(space.spaces):  # JSON objects are written with sorted keys
            doc["order"] = list(space.spaces)
        return doc
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [encode_space(sub, bounds=bounds) for sub in space.spaces]}
    raise InputError(
        f"space {type(space).__name__} is not supported: expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or "
        "Tuple; wrap the environment so that it has one of these"
    )


def decode_space(doc: SpaceDoc, depth: int = 0) -> Space[Any]:
    """The inverse of `encode_space`; `depth` counts the spaces around this one."""
    from gymnasium import spaces

    kind = doc["type"]
    if depth > _MAX_DEPTH:
        raise InputError(f"spaces within spaces, more than {_MAX_DEPTH} deep: expected at most that")
    if kind == "Box":
        if doc["dtype"] not in DTYPES:
            raise InputError(f"dtype {brief(doc['dtype'])} is not known: expected a numeric one of numpy")
        shape, dtype = sizes_of(doc["shape"]), np.dtype(doc["dtype"])
        number = float if dtype.kind == "f" else int  # a float cannot hold every 64-bit integer
        low, high = (np.array([number(x) for x in doc[key]], dtype).reshape(shape) for key in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(doc["n"], start=doc["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.asarray(doc["nvec"]), start=np.asarray(doc["start"]))
    if kind == "MultiBinary":
        shape = sizes_of(doc["shape"])
        return spaces.MultiBinary(shape if len(shape) != 1 else shape[0])
    if kind == "Dict":
        inner = ((key, decode_space(sub, depth + 1)) for key, sub in entries_of(doc))
        return spaces.Dict(OrderedDict(inner))  # of a plain dict gymnasium would sort the keys
    if kind == "Tuple":
        return spaces.Tuple([decode_space(sub, depth + 1) for sub in doc["spaces"]])
    raise InputError(
        f"space type {brief(kind)} is not known: expected Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"
    )


def entries_of(doc: SpaceDoc) -> list[tuple[str, SpaceDoc]]:
    """The entries of a Dict's document in the order in which a policy takes them: that of the keys, or the stated
    one; ValueError where that is no order of the keys."""
    entries = doc["spaces"]
    order = doc.get("order", sorted(entries))
    if not isinstance(order, list) or len(order) != len(entries) or set(order) != set(entries):
        raise ValueError(f"order {brief(order)} does not name each of the {len(entries)} entries once")
    return [(key, entries[key]) for key in order]


def ordered_like(space: Space[Any], model: Space[Any]) -> Space[Any]:
    """`space` with the entries of every Dict in the order of `model`, where that has the same entries."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict) and isinstance(model, spaces.Dict):
        if space.spaces.keys() != model.spaces.keys():
            return space
        inner = ((key, ordered_like(space.spaces[key], sub)) for key, sub in model.spaces.items())
        return spaces.Dict(OrderedDict(inner))
    if isinstance(space, spaces.Tuple) and isinstance(model, spaces.Tuple) and len(space) == len(model):
        return spaces.Tuple([ordered_like(a, b) for a, b in zip(space.spaces, model.spaces, strict=True)])
    return space


def action_map(space: Space[Any], *, unscale: bool) -> ActionMap:
    """The map from distribution actions to this action space; `unscale` for policies that act in [-1, 1]."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return ActionMap("discrete", start=(int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        start = tuple(int(x) for x in np.asarray(space.start).ravel())
        return ActionMap("multi_discrete", shape=tuple(space.shape), start=start)
    if isinstance(space, spaces.MultiBinary):
        return ActionMap("multi_binary", shape=tuple(space.shape), dtype="int8")
    if isinstance(space, spaces.Box):
        low = tuple(float(x) for x in space.low.ravel())
        high = tuple(float(x) for x in space.high.ravel())
        if unscale and not np.isfinite([*low, *high]).all():
            raise InputError(
                "action space Box has infinite bounds, but the policy acts in [-1, 1] and needs finite ones"
            )
        kind: Literal["clip", "unscale"] = "unscale" if unscale else "clip"
        return ActionMap(kind, shape=tuple(space.shape), dtype=str(space.dtype), low=low, high=high)
    raise InputError(
        f"action space {type(space).__name__} is not supported: expected Discrete, Box, MultiDiscrete or MultiBinary"
    )


def describe_space(space: Space[Any]) -> str:
    """A short form for messages, one line of at most 200 characters: `Box(8,) float32`, `Discrete(4)`."""
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return f"Box{tuple(space.shape)} {space.dtype}"
    if isinstance(space, spaces.Dict):
        inside = ", ".join(f"{key}: {describe_space(sub)}" for key, sub in space.spaces.items())
        return clipped(f"Dict{{{inside}}}", 200)
    return clipped(" ".join(str(space).split()), 200)


def same_shape(expected: Space[Any], found: Space[Any]) -> bool:
    """Whether a policy made for `expected` can act in `found`: equal kinds and sizes; bounds and dtypes may differ.

    Bounds differ between versions of one environment (LunarLander's became finite), so they are no reason to refuse.
    """
    from gymnasium import spaces

    if isinstance(expected, spaces.Dict) and isinstance(found, spaces.Dict):
        return expected.spaces.keys() == found.spaces.keys() and all(
            same_shape(sub, found.spaces[key]) for key, sub in expected.spaces.items()
        )
    if isinstance(expected, spaces.Tuple) and isinstance(found, spaces.Tuple):
        return len(expected.spaces) == len(found.spaces) and all(
            same_shape(a, b) for a, b in zip(expected.spaces, found.spaces, strict=True)
        )
    if type(expected) is not type(found):
        return False
    if isinstance(expected, spaces.Discrete) and isinstance(found, spaces.Discrete):
        return bool(expected.n == found.n)
    if isinstance(expected, spaces.MultiDiscrete) and isinstance(found, spaces.MultiDiscrete):
        return bool(np.array_equal(expected.nvec, found.nvec))
    return expected.shape == found.shape


def _bounds(values: np.ndarray) -> list[float | str]:
    if np.asarray(values).dtype.kind != "f":
        return [int(x) for x in np.asarray(values).ravel()]
    return [float(x) if np.isfinite(x) else str(float(x)) for x in np.asarray(values, np.float64).ravel()]
