"""Small charts as inline SVG, in the colours of the page: bars, and lines over timesteps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policykd.report.html import Safe, element
from policykd.report.table import count, figure

_WIDTH, _HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 34
_NAMES, _ROW = 110, 21  # of bars that have names: room for these, and height of a row

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve; `name` is shown when the pointer rests on it, `lit` sets it off from the others."""

    points: list[Point]
    name: str
    lit: bool = False


@dataclass(frozen=True)
class Frame:
    """The room of a chart: `x` and `y` are its limits."""

    x: Point
    y: Point

    def at(self, x: float, y: float) -> Point:
        """Where a point of the data is drawn; what is beyond the limits is drawn at the border."""
        (left, right), (low, high) = self.x, self.y
        across = min(max((x - left) / (right - left), 0.0), 1.0)
        up = min(max((y - low) / (high - low), 0.0), 1.0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two limits, at most `most` and at least two."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    found: list[float] = []
    while first * step <= high + 1e-9 * step and len(found) <= most:
        found.append(round(first * step, 12))
        first += 1
    return found


def bars(
    heights: Sequence[float], tips: Sequence[str], ends: tuple[str, str], title: str, *, shares: bool = True
) -> Safe:
    """Bars from 0 upwards, of `shares` or of other numbers; `tips` are shown when the pointer rests on one, `ends`
    stand below the first and last."""
    frame = Frame((0, len(heights)), (0, max(*heights, 0.0) or 1.0))
    marks = []
    for index, (height, tip) in enumerate(zip(heights, tips, strict=True)):
        left, top = frame.at(index, height)
        right, bottom = frame.at(index + 1, 0)
        place = {"x": _px(left + 1), "y": _px(top), "width": _px(right - left - 2), "height": _px(bottom - top)}
        marks.append(element("rect", element("title", tip), class_="bar", **place))
    first = element("text", ends[0], x=_LEFT, y=_HEIGHT - 12, class_="tick")
    last = element("text", ends[1], x=_WIDTH - _RIGHT, y=_HEIGHT - 12, class_="tick end")
    as_percent = shares and frame.y[1] <= 1.0
    return _svg(title, _levels(frame, _percent if as_percent else figure), marks, first, last)


def ranked(rows: Sequence[tuple[str, float, float]], names: tuple[str, str], title: str) -> Safe:
    """Two bars from the left for each name, the second thinner and in the teacher's colour, the longest of all across
    the whole room; `names` say what they are when the pointer rests on one."""
    most = max([*(max(first, second) for _, first, second in rows), 1e-12])
    room, marks = _WIDTH - _NAMES - 44, list[Safe]()
    for index, (name, *pair) in enumerate(rows):
        top = _TOP + index * _ROW
        marks.append(element("text", name, x=_NAMES - 8, y=_px(top + 12), class_="tick end"))
        for value, who, kind, (down, height) in zip(pair, names, ("bar", "bar second"), ((0, 9), (10, 4)), strict=True):
            width = max(value, 0.0) / most * room
            tip = element("title", f"{name}, {who}: {figure(value)}")
            place = {"x": _px(_NAMES), "y": _px(top + down), "width": _px(max(width, 0.5)), "height": _px(height)}
            marks.append(element("rect", tip, class_=kind, **place))
        end = _NAMES + max(pair[0], 0.0) / most * room + 4
        marks.append(element("text", figure(pair[0]), x=_px(end), y=_px(top + 9), class_="tick"))
    return _svg(title, marks, height=_TOP + len(rows) * _ROW + 4)


def lines(curves: Sequence[Line], level: tuple[float, str] | None, title: str, *, as_percent: bool) -> Safe:
    """Curves over timesteps or steps, the lit ones on top; `level` is a line across with its name."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points] + ([level[0]] if level else [])
    low, high = _limits(ys)
    left, right = min(xs), max(xs)
    frame = Frame((left, right if right > left else left + max(abs(left), 1.0)), (low, high))
    marks: list[Safe] = []
    for curve in sorted(curves, key=lambda curve: curve.lit):
        path = " ".join(f"{_px(x)},{_px(y)}" for x, y in (frame.at(*point) for point in curve.points))
        kind = "line lit" if curve.lit else "line"
        marks.append(element("polyline", element("title", curve.name), points=path, class_=kind))
    if level:
        (left, height), (right, _) = frame.at(frame.x[0], level[0]), frame.at(frame.x[1], level[0])
        marks.append(element("line", x1=_px(left), x2=_px(right), y1=_px(height), y2=_px(height), class_="level"))
        above = height - 5 if height > _HEIGHT / 2 else height + 14  # towards the middle
        marks.append(element("text", level[1], x=_px(right - 2), y=_px(above), class_="tick end levelname"))
    return _svg(title, _levels(frame, _percent if as_percent else figure), marks, _across(frame))


def _limits(values: Sequence[float]) -> Point:
    """Room for the values, and for what is far below the rest none: the first points of a curve may be."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _levels(frame: Frame, words: Callable[[float], str]) -> list[Safe]:
    """Grid lines across, each with its number."""
    found = []
    for value in ticks(*frame.y):
        left, height = frame.at(frame.x[0], value)
        found.append(element("line", x1=_px(left), x2=_WIDTH - _RIGHT, y1=_px(height), y2=_px(height), class_="grid"))
        found.append(element("text", words(value), x=_px(left - 6), y=_px(height + 4), class_="tick end"))
    return found


def _across(frame: Frame) -> list[Safe]:
    found = []
    for value in ticks(*frame.x, most=4):
        place, _ = frame.at(value, frame.y[0])
        found.append(element("text", count(value), x=_px(place), y=_HEIGHT - 12, class_="tick middle"))
    return found


def _svg(title: str, *marks: Safe | Sequence[Safe], height: float = _HEIGHT) -> Safe:
    box = f"0 0 {_WIDTH} {height}"
    return element("svg", element("title", title), *marks, viewBox=box, role="img", class_="chart")


def _percent(value: float) -> str:
    return f"{round(100 * value, 6):g} %"


def _px(value: float) -> str:
    """A place with one decimal."""
    return f"{value:.1f}"
