"""Pickles and zips put together from parts, each of which may say what no honest one does."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from tests.security.entry import zipped
from tests.security.pickles import BUILD, REDUCE, call, mapping, name, pickled, several, text
from tests.security.weights import Tensor, number, vecnormalize
from tests.security.zips import content_of, with_data

_SIZES = {"CharStorage": 1, "FloatStorage": 4}
POSITIVE, NEGATIVE = b"\x00\x00\x80?", b"\x00\x00\x80\xbf"  # one in single precision


def dtype(code: str) -> bytes:
    """A dtype of NumPy."""
    return call("numpy", "dtype", text(code), b"\x89", b"\x88")


def array(raw: bytes, code: str, *shape: int) -> bytes:
    """An array, as NumPy 2 pickles it."""
    parts = several(b"B" + struct.pack("<I", len(raw)) + raw, dtype(code), several(*map(number, shape)), text("C"))
    return name("numpy._core.numeric", "_frombuffer") + parts + REDUCE


def keep(index: int, body: bytes) -> bytes:
    """The body, which is also kept in the memo."""
    return body + b"r" + struct.pack("<I", index)


def again(index: int) -> bytes:
    """What was kept."""
    return b"j" + struct.pack("<I", index)


def moments_of(mean: bytes, var: bytes) -> bytes:
    """A RunningMeanStd."""
    start = name("stable_baselines3.common.running_mean_std", "RunningMeanStd") + b")\x81"
    return start + mapping(mean=mean, var=var) + BUILD


def keyed_statistics(entries: Mapping[str, bytes], **state: bytes) -> bytes:
    """A whole VecNormalize of a Dict."""
    return vecnormalize(obs_rms=mapping(**entries), **state)


def before(body: bytes, honest: bytes) -> bytes:
    """A pickle of which the body, which leaves nothing on the stack, is walked first."""
    return honest[:2] + body + honest[2:]


def box_of(low: bytes, high: bytes, code: str, *shape: int) -> bytes:
    """A Box with these bounds."""
    state = mapping(low=low, high=high, _shape=several(*map(number, shape)), dtype=dtype(code))
    return name("gymnasium.spaces.box", "Box") + b")\x81" + state + BUILD


def unit_box(*shape: int) -> bytes:
    """A Box from -1 to 1."""
    size = math.prod(shape)
    return box_of(array(NEGATIVE * size, "f4", *shape), array(POSITIVE * size, "f4", *shape), "f4", *shape)


def dict_of(inner: Mapping[str, bytes]) -> bytes:
    """A Dict."""
    return name("gymnasium.spaces.dict", "Dict") + b")\x81" + mapping(spaces=mapping(**inner)) + BUILD


def with_observations(kind: str, space: bytes, printed: str = "dict.Dict", **facts: Any) -> bytes:
    """The zip of a base with another observation space, in its serialised field and, as `facts`, beside it."""
    content = content_of(kind)
    raw = base64.b64encode(pickled(space)).decode()
    entry = {":type:": f"<class 'gymnasium.spaces.{printed}'>", ":serialized:": raw} | facts
    return with_data(content, json.loads(content["data"]) | {"observation_space": entry})


def policy_of(shapes: Mapping[str, tuple[int, ...]], kind: str = "FloatStorage") -> bytes:
    """A policy.pth of zeros, packed tightly."""
    import zipfile

    tensors, members = {}, {}
    for count, (key, shape) in enumerate(shapes.items()):
        tensors[key] = Tensor(str(count), shape, storage_class=name("torch", kind)).opcodes()
        members[f"archive/data/{count}"] = bytes(math.prod(shape) * _SIZES[kind])
    return zipped({"archive/data.pkl": pickled(mapping(**tensors)), **members}, zipfile.ZIP_DEFLATED)
