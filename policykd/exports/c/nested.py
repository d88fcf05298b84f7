"""Layers that hold others, as C: what is inside runs between buffers of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from policykd.exports.c.sums import Writer
from policykd.exports.graph import Layer, Parallel, Residual

Inside = Callable[[tuple[Layer, ...], str], None]
"""Writes the layers inside of one, for what their positions begin with."""


class Nested(Writer, Protocol):
    """Of the buffers `pair` one is `now`, the other `free`; `borrowed` others are in use."""

    pair: tuple[str, str]
    borrowed: int


def write_residual(parts: Nested, index: str, layer: Residual, inside: Inside) -> None:
    """The layers run on a copy, between the free buffer and a third one."""
    x, width, pair, borrowed = parts.now, parts.width, parts.pair, parts.borrowed
    _enter(parts, (parts.free, _borrow(parts)), 0, width)
    inside(layer.layers, f"{index}_")
    parts.say(f"for (int i = 0; i < {width}; ++i) {{", f"    {x}[i] += {parts.now}[i];", "}")
    parts.now, parts.pair, parts.borrowed = x, pair, borrowed


def write_parallel(parts: Nested, index: str, layer: Parallel, inside: Inside) -> None:
    """Each part runs between two buffers of its own, and its results are gathered in the free one."""
    x, y, pair, borrowed, at = parts.now, parts.free, parts.pair, parts.borrowed, 0
    inner = (_borrow(parts), _borrow(parts))
    for number, (begin, end, layers) in enumerate(layer.parts):
        parts.now = x
        _enter(parts, inner, begin, end)
        inside(layers, f"{index}_{number}_")
        parts.need(y, at + parts.width)
        line = f"    {y}[{_at(at)}] = {parts.now}[i];"
        parts.say(f"for (int i = 0; i < {parts.width}; ++i) {{", line, "}")
        at += parts.width
    parts.now, parts.pair, parts.borrowed, parts.width = y, pair, borrowed, at


def _enter(parts: Nested, pair: tuple[str, str], begin: int, end: int) -> None:
    """Columns begin to end of the numbers, copied into the first of another pair of buffers, which is then in use."""
    x, parts.pair, parts.width = parts.now, pair, end - begin
    parts.need(pair[0], parts.width)
    parts.say(f"for (int i = 0; i < {parts.width}; ++i) {{", f"    {pair[0]}[i] = {x}[{_at(begin)}];", "}")
    parts.now = pair[0]


def _at(begin: int) -> str:
    return f"{begin} + i" if begin else "i"


def _borrow(parts: Nested) -> str:
    """A buffer that nothing uses, until `borrowed` is set back."""
    name = f"d{parts.borrowed}"
    parts.need(name, 1)
    parts.borrowed += 1
    return name
