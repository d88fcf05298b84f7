"""The curves of a run, read from its TensorBoard events."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from policykd.spine.tracker import PICTURE_SUFFIX

_MOST_BYTES = 2**24  # of events; beyond it curves are left out, since reading them would take seconds
_MOST_POINTS = 300  # of a curve: more than a picture has columns


@dataclass(frozen=True)
class Curve:
    """`name` as in TensorBoard without the member (`return/select`), `member` as `d1_w16_s0` or empty."""

    name: str
    member: str
    points: list[tuple[float, float]]


def curves_in(folder: Path) -> list[Curve]:
    """Every scalar curve of two points and more, by name; none where the events are damaged or too large."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    files = [path for path in sorted(folder.glob("events.out.tfevents.*")) if path.suffix != PICTURE_SUFFIX]
    files = [path for path in files if path.is_file()]
    if sum(path.stat().st_size for path in files) > _MOST_BYTES:
        return []
    found: dict[str, dict[int, float]] = {}
    for path in files:
        with contextlib.suppress(Exception):  # protobuf's DecodeError, which tensorboard does not hand on
            for record in _records(path.read_bytes()):
                event = Event.FromString(record)
                for value in event.summary.value:
                    if value.HasField("simple_value") and math.isfinite(value.simple_value):
                        found.setdefault(value.tag, {})[event.step] = value.simple_value
    return [_curve(tag, points) for tag, points in sorted(found.items()) if len(points) > 1]


def _records(data: bytes) -> Iterator[bytes]:
    """The records of an event file: length (8 bytes), its checksum (4), the record, its checksum (4).

    tensorboard's loader takes ten times as long, for checksums in Python; here a damaged record only ends a curve.
    """
    begin = 0
    while begin + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, begin)
        if begin + 12 + length > len(data):
            return
        yield data[begin + 12 : begin + 12 + length]
        begin += length + 16


def _curve(tag: str, points: dict[int, float]) -> Curve:
    parts = tag.split("/")
    name, member = ("/".join(parts[:2]), "/".join(parts[2:])) if len(parts) > 2 else (tag, "")
    return Curve(name, member, thinned([(float(step), value) for step, value in sorted(points.items())]))


def thinned(points: list[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` of the points, evenly spaced, the last one among them."""
    if len(points) <= most:
        return points
    stride = (len(points) - 1) / (most - 1)
    return [points[round(index * stride)] for index in range(most)]
