"""The bytes of an ONNX file, walked before they are parsed: a parser's objects cost far more than the bytes they need.

Protocol buffers: a message is a list of (field number, wire type, value); a value of wire type 2 has a length and may
be a message again. The numbers are those of onnx.proto.
"""

from __future__ import annotations

MAX_FIELDS = 50_000  # of all messages; a policy has a few hundred
MAX_PACKED = 2**20  # bytes of small integers, each of which becomes 8 in memory
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 14: "text"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 16: "text"},
    "node": {5: "attribute", 9: "text"},
    "attribute": {5: "tensor", 10: "tensor"},
    "tensor": {16: "text"},
    "value": {2: "type", 4: "text"},
    "type": {1: "tensor type"},
    "tensor type": {2: "shape"},
    "shape": {1: "dimension"},
}
_REFUSED: dict[str, dict[int, str]] = {
    "model": {20: "training information", 25: "functions of its own", 26: "device settings"},
    "graph": {14: "quantization annotations", 15: "sparse weights"},
    "node": {10: "device settings"},
    "attribute": {
        **dict.fromkeys((6, 11), "a graph inside a node (If, Loop, Scan)"),
        **dict.fromkeys((14, 15), "types inside a node"),
        **dict.fromkeys((22, 23), "sparse weights"),
        21: "a reference to an attribute of a function",
    },
    "tensor": {
        3: "weights in segments",
        6: "text in place of weights",
        13: "weights that lie in another file (external data)",
    },
    "type": dict.fromkeys((4, 5, 7, 8, 9), "a type that is no tensor"),
}
_PACKED = {"tensor": (1, 5, 7, 11), "attribute": (7, 8)}


class UnsafeError(Exception):
    """Why a file is refused, without the file's name."""


def walk(data: bytes) -> None:
    """Passes if `data` is a list of messages as an ONNX policy has them; else UnsafeError. Nothing is built."""
    waiting = [("model", 0, len(data))]
    count = 0
    while waiting:
        kind, at, end = waiting.pop()
        while at < end:
            count += 1
            if count > MAX_FIELDS:
                raise UnsafeError(f"has more than {MAX_FIELDS} fields, expected the graph of a policy")
            key, at = _varint(data, at, end)
            number, wire = key >> 3, key & 7
            if number in _REFUSED.get(kind, {}):
                raise UnsafeError(f"has {_REFUSED[kind][number]}, which is not supported")
            if wire == _VARINT:
                _, at = _varint(data, at, end)
                continue
            size, at = _size(data, at, end, wire)
            if size > end - at:
                raise UnsafeError("is cut off or damaged: a field is longer than the file")
            if wire == _BYTES:
                if number in _PACKED.get(kind, ()) and size > MAX_PACKED:
                    raise UnsafeError(f"has a list of {size} bytes, expected weights as raw data")
                inside = _INSIDE.get(kind, {}).get(number)
                if inside is not None:
                    waiting.append((inside, at, at + size))
            at += size


def _size(data: bytes, at: int, end: int, wire: int) -> tuple[int, int]:
    """The length of a value that is no varint, and where it begins."""
    if wire == _BYTES:
        return _varint(data, at, end)
    if wire in (_FIXED64, _FIXED32):
        return (8 if wire == _FIXED64 else 4), at
    raise UnsafeError("is no ONNX file, or is damaged")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise UnsafeError("is cut off or damaged")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise UnsafeError("is no ONNX file, or is damaged")
