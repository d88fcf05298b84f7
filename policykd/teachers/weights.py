"""A torch state dict read as numbers: the zip format of torch 1.6 and later, and the single file before it.

The pickle inside is walked as data (`pickledata`); of everything it may name, dense strided tensors over numeric
storages are built, and the rest is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from policykd.spine.errors import InputError
from policykd.teachers.pickledarrays import Budget, as_dict, as_shape, as_strides, kind_of
from policykd.teachers.pickledata import (
    MAX_FIELD_OPCODES,
    Call,
    DecodeError,
    PersistentId,
    Symbol,
    decode,
    decode_from,
)
from policykd.teachers.ziptools import Archive

Array = NDArray[Any]
Storages = Callable[[str], bytes]

MAX_BYTES = 128 * 2**20  # of all tensors of one file together, in single precision or their own, if that is wider
MAX_TENSORS = 10_000
_MAX_PICKLE = 16 * 2**20
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\n"
_REMEDY = "save the model again with stable-baselines3, or fetch the file again"
_BFLOAT16 = "bfloat16"
_STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": _BFLOAT16,
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?",
}  # fmt: skip


def read_state_dict(data: bytes, name: str) -> dict[str, Array]:
    """The tensors of a torch file by name, each contiguous and finite, in the dtype of the file (bfloat16 as float32);
    not to be written to.

    `name` is how messages call the file. InputError for damage, for anything but dense tensors, and for NaN or
    infinity.
    """
    try:
        tensors = _read_zip(data, name) if data[:2] == b"PK" else _read_legacy(data)
    except DecodeError as error:
        raise InputError(f"{name}: not a readable torch state dict: {error}; {_REMEDY}") from error
    for key, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise InputError(
                f"{name}: tensor {key[:80]!r} has NaN or infinite numbers: training diverged; use another model"
            )
    return tensors


def _read_zip(data: bytes, name: str) -> dict[str, Array]:
    archive = Archive(data, name, _REMEDY)
    pickles = [member for member in archive.members if member.endswith("/data.pkl") and member.count("/") == 1]
    if len(pickles) != 1:
        raise DecodeError(f"expected one data.pkl in the zip, found {len(pickles)}")
    prefix = pickles[0].removesuffix("data.pkl")
    order = f"{prefix}byteorder"
    if order in archive.members and archive.read(order, 16) != b"little":
        raise DecodeError("numbers in big-endian order, which is not supported")
    tree = decode(archive.read(pickles[0], _MAX_PICKLE))
    budget = Budget(MAX_BYTES, "storages")

    def storage(key: str) -> bytes:
        member = f"{prefix}data/{key}"
        budget.take(archive.size(member))
        return archive.read(member, MAX_BYTES)

    return _tensors(tree, storage)


def _read_legacy(data: bytes) -> dict[str, Array]:
    """Four pickles (magic number, protocol, platform, state dict), the list of storages, then their raw numbers."""
    if not data.startswith(_LEGACY_START):
        raise DecodeError("neither a zip nor a torch file of before 1.6")
    magic, at = _small(data, 0)
    if magic != _MAGIC:
        raise DecodeError("neither a zip nor a torch file of before 1.6")
    _, at = _small(data, at)
    platform, at = _small(data, at)
    if as_dict(platform).get("little_endian") is not True:
        raise DecodeError("numbers in big-endian order, which is not supported")
    tree, at = decode_from(data, at, max_bytes=MAX_BYTES)
    keys, at = _small(data, at)
    itemsizes = _legacy_itemsizes(tree)
    raw: dict[str, bytes] = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in itemsizes or at + 8 > len(data):
            raise DecodeError("a list of storages that does not fit the tensors")
        end = at + 8 + int.from_bytes(data[at : at + 8], "little") * itemsizes[key]
        if end > len(data):
            raise DecodeError("a storage that ends behind the file")
        raw[key], at = data[at + 8 : end], end
    return _tensors(tree, lambda key: _required(raw, key))


def _small(data: bytes, at: int) -> tuple[Any, int]:
    """One of the pickles around the state dict, and the position behind it."""
    return decode_from(data, at, max_bytes=MAX_BYTES, max_opcodes=MAX_FIELD_OPCODES)


def _legacy_itemsizes(tree: Any) -> dict[str, int]:
    """Bytes per number of each storage that a state dict refers to."""
    sizes: dict[str, int] = {}
    for value in as_dict(tree).values():
        key, kind, _ = _reference(_rebuild_args(value)[0])
        sizes[key] = 2 if kind == _BFLOAT16 else np.dtype(kind).itemsize
    return sizes


def _required(raw: Mapping[str, bytes], key: str) -> bytes:
    if key not in raw:
        raise DecodeError("a tensor without its storage")
    return raw[key]


def _tensors(tree: Any, storage: Storages) -> dict[str, Array]:
    entries = as_dict(tree)
    if len(entries) > MAX_TENSORS:
        raise DecodeError(f"{len(entries)} tensors, more than the limit of {MAX_TENSORS}")
    cache: dict[str, bytes] = {}
    budget = Budget(MAX_BYTES, "tensors")
    tensors: dict[str, Array] = {}
    for key, value in entries.items():
        if not isinstance(key, str):
            raise DecodeError("a tensor whose name is not a string")
        tensors[key] = _tensor(value, storage, cache, budget)
    return tensors


def _rebuild_args(tree: Any) -> tuple[Any, ...]:
    """(storage reference, offset, size, stride) of a dense tensor or parameter."""
    target = tree.target if isinstance(tree, Call) else ""
    if target == "torch._utils._rebuild_parameter" and tree.args:
        tree = tree.args[0]
        target = tree.target if isinstance(tree, Call) else ""
    if target != "torch._utils._rebuild_tensor_v2" or len(tree.args) < 6:
        raise DecodeError(f"expected a dense tensor, found {kind_of(tree)}")
    return tuple(tree.args[:4])


def _reference(tree: Any) -> tuple[str, str, int]:
    """(key, dtype, count of numbers) of a reference to a storage."""
    value = tree.value if isinstance(tree, PersistentId) else None
    if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] != "storage":
        raise DecodeError("a tensor without a storage")
    _, symbol, key, _, count = value[:5]
    if len(value) == 6 and value[5] is not None:
        raise DecodeError("a storage that is a view of another")
    kind = _STORAGES.get(symbol.name) if isinstance(symbol, Symbol) and symbol.module == "torch" else None
    if kind is None:
        raise DecodeError(f"a storage that is not numeric: {kind_of(symbol)}")
    if not isinstance(key, str) or "/" in key or type(count) is not int:
        raise DecodeError("a malformed reference to a storage")
    return key, kind, count


def _tensor(tree: Any, storage: Storages, cache: dict[str, bytes], budget: Budget) -> Array:
    reference, offset, size, stride = _rebuild_args(tree)
    key, kind, count = _reference(reference)
    if key not in cache:
        cache[key] = storage(key)
    dtype = np.dtype("<u2" if kind == _BFLOAT16 else kind)
    if len(cache[key]) % dtype.itemsize:
        raise DecodeError(f"a storage of {len(cache[key])} bytes, which are no whole numbers of {dtype.itemsize} bytes")
    numbers = np.frombuffer(cache[key], dtype)
    size, stride = as_shape(size), as_strides(stride)
    if len(numbers) != count or type(offset) is not int or offset < 0 or len(size) != len(stride):
        raise DecodeError(f"a tensor of size {size} over {len(numbers)} of {count} numbers")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= count or math.prod(size) > count):
        raise DecodeError(f"a tensor of size {size}, stride {stride} and offset {offset} over {count} numbers")
    budget.take(math.prod(size) * max(numbers.itemsize, 4))
    steps = tuple(step * numbers.itemsize for step in stride)
    seen = as_strided(numbers[offset:], size, steps) if math.prod(size) else np.zeros(size, numbers.dtype)
    dense = np.ascontiguousarray(seen).reshape(size)  # no copy of a tensor that lies as it should
    return _from_bfloat16(dense) if kind == _BFLOAT16 else dense


def _from_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(bits.shape)
