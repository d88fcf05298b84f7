"""The picture of a decision tree, drawn by matplotlib: all of it where it is small, else its first levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from policykd.report.frontier_plot import CHOSEN, GRID, INK, PAPER, PASSED, QUIET
from policykd.students.nodes import Nodes
from policykd.students.rules import answers_of, questions_of
from policykd.students.tree import TreeStudent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ENDS = 16  # beside each other: what a page is wide enough for
_ACROSS, _DOWN = 1.02, 0.85  # inches of an end, and of a level
_MOST_TEXT = 22


@dataclass
class _Box:
    """A node that is drawn: `code` as in `Nodes.children`; `whole` False: what is below it is left out."""

    code: int
    depth: int
    parent: int
    whole: bool = True
    across: float = 0.0


def draw(student: TreeStudent) -> Figure:
    """The tree from the top. Call it inside `frontier_plot.settings()`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    nodes = student.nodes
    boxes = _boxes(nodes, _levels(nodes))
    ends = _spread(boxes)
    deepest = max(box.depth for box in boxes)
    size = (max(4.0, _ACROSS * ends + 0.4), _DOWN * (deepest + 1) + 0.3)
    figure = Figure(figsize=size, dpi=100, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-0.6, ends - 0.4)
    axes.set_ylim(-deepest - 0.5, 0.5)
    _lines(axes, boxes)
    _words(axes, student, boxes)
    return figure


def _levels(nodes: Nodes) -> int:
    """How many levels of questions there is room for."""
    ends, level = [0 if len(nodes) else -1], 0
    while any(code >= 0 for code in ends):
        ends = [child for code in ends for child in (nodes.children[code].tolist() if code >= 0 else [code])]
        if len(ends) > _MOST_ENDS:
            return max(level, 1)
        level += 1
    return level


def _boxes(nodes: Nodes, levels: int) -> list[_Box]:
    """From the left, each after the one above it."""
    found: list[_Box] = []
    waiting = [_Box(0 if len(nodes) else -1, 0, -1)]
    while waiting:
        box = waiting.pop()
        found.append(box)
        if box.code < 0:
            continue
        box.whole = box.depth < levels
        if box.whole:
            yes, no = nodes.children[box.code].tolist()
            own = len(found) - 1
            waiting += [_Box(no, box.depth + 1, own), _Box(yes, box.depth + 1, own)]
    return found


def _spread(boxes: list[_Box]) -> int:
    """Puts ends beside each other, and every other box over the middle of those below it; how many ends there are."""
    below: dict[int, list[float]] = {}
    ends = 0
    inner = {box.parent for box in boxes}
    for index, box in enumerate(boxes):
        if index not in inner:
            box.across, ends = float(ends), ends + 1
    for index in range(len(boxes) - 1, -1, -1):
        box = boxes[index]
        if index in inner:
            box.across = float(np.mean(below[index]))
        below.setdefault(box.parent, []).append(box.across)
    return ends


def _lines(axes: Axes, boxes: list[_Box]) -> None:
    for box in boxes:
        if box.parent >= 0:
            above = boxes[box.parent]
            axes.plot([above.across, box.across], [-above.depth, -box.depth], color=QUIET, linewidth=1.0, zorder=1)
            if box.depth == 1:
                text, middle = "yes" if box.across < above.across else "no", (above.across + box.across) / 2
                style = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
                axes.text(middle, -0.5, text, ha="center", va="center", fontsize=9, color=QUIET, bbox=style)


def _words(axes: Axes, student: TreeStudent, boxes: list[_Box]) -> None:
    questions, answers = questions_of(student, digits=4), answers_of(student)
    for box in boxes:
        edge, face = QUIET, PAPER
        if box.code < 0:
            text, edge = "\n".join(_wrapped(answers[-1 - box.code].replace(" (", "\n("))), PASSED
        elif box.whole:
            text = "\n".join(_wrapped(questions[box.code].replace(" <=", "\n<=").replace(" is not", "\nis not")))
        else:
            text, edge, face = f"...\n{_leaves_below(student.nodes, box.code)} leaves", CHOSEN, GRID
        style = {"boxstyle": "round,pad=0.35", "facecolor": face, "edgecolor": edge, "linewidth": 1.2}
        axes.text(box.across, -box.depth, text, ha="center", va="center", fontsize=9, color=INK, bbox=style, zorder=2)


def _wrapped(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield line if len(line) <= _MOST_TEXT else f"{line[: _MOST_TEXT - 1]}…"


def _leaves_below(nodes: Nodes, code: int) -> int:
    count, waiting = 0, [code]
    while waiting:
        node = waiting.pop()
        if node < 0:
            count += 1
        else:
            waiting += nodes.children[node].tolist()
    return count
