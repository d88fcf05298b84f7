"""Labels that cover neither marks nor each other: each takes the first free place around its point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels

_NEAR = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))  # directions, the best first
_SIDES = {-1: "right", 0: "center", 1: "left"}
_HEIGHTS = {-1: "top", 0: "center", 1: "bottom"}


class Labels:
    """Places texts in `axes`, whose limits and size must not change any more."""

    def __init__(self, axes: Axes) -> None:
        self._axes = axes
        self._taken: list[Box] = []
        frame = axes.get_window_extent()
        self._frame: Box = (frame.x0, frame.y0, frame.x1, frame.y1)

    def block(self, x: float, y: float, radius: float = 6) -> None:
        """A mark at a point of the data; no text comes within `radius` points of it."""
        left, bottom = self._axes.transData.transform((x, y))
        self._taken.append((left - radius, bottom - radius, left + radius, bottom + radius))

    def block_line(self, x: float, low: float, high: float) -> None:
        """An upright line of the data."""
        left, bottom = self._axes.transData.transform((x, low))
        _, top = self._axes.transData.transform((x, high))
        self._taken.append((left - 2, bottom, left + 2, top))

    def block_level(self, height: float) -> None:
        """A line across at a height of the data."""
        _, bottom = self._axes.transData.transform((self._axes.get_xlim()[0], height))
        self._taken.append((self._frame[0], bottom - 1, self._frame[2], bottom + 1))

    def put(
        self, text: str, point: tuple[float, float], *, size: float = 10, must: bool = False, **style: Any
    ) -> Annotation | None:
        """The text near a point of the data; None where there is no room, unless it `must` be there."""
        distances = (8, 14, 26, 40, 60, 90, 130) if must else (7, 9)
        for distance in distances:
            for across, up in _NEAR:
                note = self._annotate(text, point, (across, up), distance, size, style)
                box = self._box(note)
                if self._free(box):
                    self._taken.append(box)
                    return note
                note.remove()
        return self._annotate(text, point, (0, -1), distances[0], size, style) if must else None

    def _annotate(
        self,
        text: str,
        point: tuple[float, float],
        towards: tuple[int, int],
        distance: float,
        size: float,
        style: dict[str, Any],
    ) -> Annotation:
        across, up = towards
        away = distance * (0.75 if across and up else 1.0)
        arrow = {"arrowstyle": "-", "linewidth": 0.8, "alpha": 0.6, "shrinkB": 8}
        leader: dict[str, Any] = {"arrowprops": arrow} if distance > 20 else {}
        return self._axes.annotate(
            text,
            point,
            (across * away, up * away),
            textcoords="offset points",
            ha=_SIDES[across],
            va=_HEIGHTS[up],
            fontsize=size,
            zorder=5,
            **leader,
            **style,
        )

    def _box(self, note: Annotation) -> Box:
        from matplotlib.text import Text

        note.update_positions(self._axes.figure.canvas.get_renderer())  # type: ignore[attr-defined]
        extent = Text.get_window_extent(note)
        return extent.x0 - 1, extent.y0 - 1, extent.x1 + 1, extent.y1 + 1

    def _free(self, box: Box) -> bool:
        left, bottom, right, top = box
        inside = (
            left >= self._frame[0] and bottom >= self._frame[1] and right <= self._frame[2] and top <= self._frame[3]
        )
        return inside and not any(
            left < other[2] and other[0] < right and bottom < other[3] and other[1] < top for other in self._taken
        )
