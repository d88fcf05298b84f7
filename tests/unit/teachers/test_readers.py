"""The readers of pickles and tensors on what they may meet, honest and odd."""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from policykd.spine.errors import InputError
from policykd.teachers.pickledata import DecodeError, decode
from policykd.teachers.weights import read_state_dict

_watched: list[list[str]] = []


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",  # BYTEARRAY8 of 4 EiB
        b"\x80\x05\x8e" + struct.pack("<Q", 2**62) + b".",  # BINBYTES8
        b"\x80\x05\x8d" + struct.pack("<Q", 2**62) + b".",  # BINUNICODE8
        b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b".",  # LONG4
        b"\x80\x02\x8b" + struct.pack("<i", 200_000) + b"\x7f" * 200_000 + b".",
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"I" + b"9" * 100_000 + b"\n.",
        b"cos\nsystem\n(S'ls'\ntR.",
        b"(i__builtin__\nopen\n.",
        b"\x82\x01.",  # EXT1
        b"P1\n.",
        b"(((((.",
        b"}}N..",
        b"]h\x05.",
        b"}]Ns.",  # an unhashable key
        b".",
        b"",
        b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000,
    ],
    ids=range(18),
)  # fmt: skip
def test_odd_pickles_are_refused_quickly(data: bytes) -> None:
    start = time.process_time()
    with pytest.raises(DecodeError) as error:
        decode(data)
    assert time.process_time() - start < 2.0
    assert len(str(error.value)) < 300


def test_a_memo_index_allocates_nothing() -> None:
    assert decode(b"Nr" + struct.pack("<I", 2**32 - 1) + b".") is None


def test_self_reference_and_doubling_are_only_references() -> None:
    assert len(decode(pickle.dumps(_loop()))) == 1
    nested: Any = ()
    for _ in range(60):
        nested = (nested, nested)
    assert len(decode(pickle.dumps(nested))) == 2


def _loop() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def _state(change: Callable[[dict[str, Any]], None]) -> bytes:
    import io

    state: dict[str, Any] = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}
    change(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(a=s["a"].to_sparse()), "expected a dense tensor"),
        (lambda s: s.update(a=torch.ones(1).expand(1_000_000)), "over 1 numbers"),
        (lambda s: s.update(a=torch.tensor([1.0, float("nan")])), "NaN or infinite"),
        (lambda s: s.update(a=torch.tensor([float("inf")], dtype=torch.bfloat16)), "NaN or infinite"),
        (lambda s: s.update(a=torch.ones(2, dtype=torch.complex64)), "not numeric"),
        (lambda s: s.update(a=torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)), "expected a dense"),
        (lambda s: s.update(a="text"), "expected a dense tensor, found str"),
        (lambda s: s.update(a=torch.empty(3, device="meta")), "expected a dense tensor"),
    ],
)
def test_unusual_tensors_are_refused(change: Callable[[dict[str, Any]], None], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_state_dict(_state(change), "policy.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_every_dtype_and_layout(legacy: bool) -> None:
    import io

    base = torch.arange(12.0).reshape(3, 4)
    state = {str(dtype): base.to(dtype) for dtype in
             (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8, torch.bool)}  # fmt: skip
    state |= {"transposed": base.T, "slice": base[1:, 2], "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4),
              "parameter": torch.nn.Parameter(base)}  # fmt: skip
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    tensors = read_state_dict(buffer.getvalue(), "policy.pth")
    assert tensors.keys() == state.keys()
    for key, value in state.items():
        expected = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
        np.testing.assert_array_equal(tensors[key], expected.numpy())
        assert tensors[key].flags.c_contiguous
        assert tensors[key].shape == tuple(value.shape)
