"""The picture of a run: retention against parameters, with the teacher, the gate, and the chosen student.

matplotlib is imported inside the functions: start-up stays fast. Its settings are its own defaults and those below, so
that equal documents give equal pictures on any machine.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from policykd.report.facts import Member, interval, members_of, number, section, size
from policykd.report.labels import Labels
from policykd.report.table import count, percent, times
from policykd.spine.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
Claim: TypeAlias = "tuple[float, float, tuple[float, float] | None]"
"""Parameters, retention and its interval."""

# Okabe and Ito's colours, which people with any colour vision tell apart; shapes differ as well.
PAPER, INK, QUIET, GRID = "#ffffff", "#1c2024", "#5d666f", "#e3e6e9"
PASSED, FAILED, DROPPED, CHOSEN, TEACHER, GATE = "#0072b2", "#d55e00", "#9aa3ab", "#e69f00", "#007f5f", "#b0508a"
COLOURS = {
    "paper": PAPER,
    "ink": INK,
    "quiet": QUIET,
    "grid": GRID,
    "passed": PASSED,
    "failed": FAILED,
    "dropped": DROPPED,
    "chosen": CHOSEN,
    "teacher": TEACHER,
    "gate": GATE,
}
_STYLES: dict[str, dict[str, Any]] = {
    "passed": {"marker": "o", "color": PASSED, "markersize": 7},
    "failed": {"marker": "X", "color": FAILED, "markersize": 7},
    "dropped": {"marker": ".", "color": DROPPED, "markersize": 8, "alpha": 0.75},
}
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "policykd",  # ids in the SVG do not change from run to run
    "svg.fonttype": "path",  # no font of the machine is needed to show it
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
}
_BEHIND = {"facecolor": PAPER, "alpha": 0.85, "edgecolor": "none", "pad": 1.5}  # a label over intervals
MOST_DRAWN = 400
_NARROWEST = 0.06
_PNG_DPI = 200
_BELOW_GATE = 0.15  # of retention: where a gate decides, what matters lies near it
_LOWEST, _HIGHEST = -0.1, 2.0  # retention: what is beyond is drawn at the border, or one failure would hide the rest


@dataclass(frozen=True)
class Picture:
    """The same picture twice: as text of an SVG, and as bytes of a PNG of `size` (width, height)."""

    svg: str
    png: bytes
    size: tuple[int, int]


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """matplotlib as the pictures need it, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(cast("Any", _SETTINGS))
        yield


def draw(frontier: Json | None, result: Json) -> Figure:
    """The picture of the documents frontier.json (None for a run of one student) and result.json.

    Call it inside `settings()`. Members whose parameters or retention are not known are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.0), dpi=100, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.095, 0.125, 0.72, 0.775))
    members = [one for one in members_of(frontier, result) if one.params is not None and one.retention is not None]
    members = few(members, MOST_DRAWN)
    claim = _claim(result)
    teacher = size(section(result, "teacher").get("params")) or size(section(frontier, "teacher").get("params"))
    gate = _gate(frontier, result)
    _axes(axes, members, claim, teacher, gate)
    labels = Labels(axes)
    low, high = axes.get_ylim()
    close = gate is not None and abs(1.0 - gate[0]) < 0.2 * (high - low)
    _teacher(axes, labels, teacher, "bottom" if close else "center")
    if gate:
        _gate_line(axes, labels, *gate, "top" if close else "center")
    _members(axes, labels, members)
    _chosen(axes, labels, claim, result)
    _shapes(labels, members, claim)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False, handletextpad=0.4, borderpad=0.2)
    return figure


def save(figure: Figure, folder: Path, name: str = "frontier") -> Picture:
    """Writes frontier.png and frontier.svg, or those of another name. Call it inside `settings()`."""
    vector, raster = io.BytesIO(), io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(vector, format="svg", metadata=nothing)
    figure.savefig(raster, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    write_atomic(folder / f"{name}.svg", vector.getvalue())
    write_atomic(folder / f"{name}.png", raster.getvalue())
    width, height = (round(inches * _PNG_DPI) for inches in figure.get_size_inches())
    return Picture(vector.getvalue().decode(), raster.getvalue(), (width, height))


def gate_words(gate: Json) -> str | None:
    """`non-inferior to 99 %, margin 2 points`; None where the gate does not say it."""
    keep, margin = number(gate.get("keep")), number(gate.get("margin"))
    if keep is None or margin is None:
        return None
    points = "point" if f"{100 * margin:g}" == "1" else "points"
    return f"non-inferior to {100 * keep:g} %, margin {100 * margin:g} {points}"


def few(members: list[Member], most: int) -> list[Member]:
    """Not more than can be seen: the chosen one, and an even choice of the others."""
    if len(members) <= most:
        return members
    kept = {int(place * len(members) / most) for place in range(most)}
    return [one for place, one in enumerate(members) if place in kept or one.status == "chosen"]


def _claim(result: Json) -> Claim | None:
    """The student on the report seeds."""
    params, held = size(section(result, "student").get("params")), section(result, "retention")
    value = number(held.get("value"))
    return None if params is None or value is None else (params, value, interval(held.get("ci95")))


def _gate(frontier: Json | None, result: Json) -> tuple[float, str] | None:
    """(the height of the line, its words)."""
    for gate in (section(result, "gate"), section(frontier, "gate")):
        words, keep, margin = gate_words(gate), number(gate.get("keep")), number(gate.get("margin"))
        if words is not None and keep is not None and margin is not None:
            return keep - margin, words
    return None


def _axes(
    axes: Axes,
    members: Sequence[Member],
    claim: Claim | None,
    teacher: float | None,
    gate: tuple[float, str] | None,
) -> None:
    """Limits, ticks and grid."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    sizes = (
        [one.params for one in members if one.params] + ([claim[0]] if claim else []) + ([teacher] if teacher else [])
    )
    held = [1.0] + ([gate[0]] if gate else [])
    held += [one.retention or 0.0 for one in members]
    held += [end for one in members if one.status != "dropped" for end in one.interval or ()]
    if claim:
        held += [claim[1], *(claim[2] or ())]
    lowest = _LOWEST if gate is None else gate[0] - _BELOW_GATE
    low, high = max(min(held), lowest), min(max(held), _HIGHEST)
    thin = max(_NARROWEST - (high - low), 0.0) / 2  # a difference of nothing does not fill the picture
    low, high = low - thin, high + thin
    room = 0.09 * (high - low)
    left, right = min(sizes, default=1.0), max(sizes, default=10.0)
    axes.set_xscale("log")
    wide = max((right / left) ** 0.06, 1.25)
    axes.set_xlim(left / wide, right * wide)
    axes.set_ylim(low - room, high + room)
    wide_range = right / left > 60
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if wide_range else (1.0, 2.0, 5.0), numticks=30))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    decimals = 1 if high - low < 0.04 else 0
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.{decimals}f} %"))
    axes.set_xlabel("parameters (log scale)")
    axes.set_ylabel("retention of the teacher's return")
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _level(axes: Axes, height: float, text: str, align: str, **style: Any) -> None:
    """A line across, with its words to the right of the axes, where no mark can be."""
    axes.axhline(height, linewidth=1.2, zorder=1.5, **style)
    away = {"bottom": -1, "center": 0, "top": 1}[align]
    where: Any = ("axes fraction", "data")
    axes.annotate(
        text, (1, height), (7, away), xycoords=where, textcoords="offset points", va=align, color=style["color"]
    )


def _teacher(axes: Axes, labels: Labels, params: float | None, align: str) -> None:
    held = None if params is None else f"{params:,.0f}" if params < 1e7 else count(params)
    _level(axes, 1.0, "teacher" if held is None else f"teacher:\n{held} parameters", align, color=TEACHER)
    labels.block_level(1.0)
    if params is not None:
        axes.plot([params], [1.0], "D", color=TEACHER, markersize=8, label="teacher", zorder=3, clip_on=False)
        labels.block(params, 1.0)


def _gate_line(axes: Axes, labels: Labels, height: float, words: str, align: str) -> None:
    text = "gate: " + words.replace(" to ", "\nto ").replace(", ", ",\n")
    _level(axes, height, text, align, color=GATE, linestyle=(0, (5, 3)))
    labels.block_level(height)


def _members(axes: Axes, labels: Labels, members: Sequence[Member]) -> None:
    """A mark for each but the chosen one, whose figures on fresh seeds stand in result.json."""
    low, high = axes.get_ylim()
    named: set[str] = set()
    for one in members:
        kind = one.status if one.status in _STYLES else "passed" if one.status == "chosen" else "dropped"
        style, place, held = _STYLES[kind], one.params or 1.0, one.retention or 0.0
        shown = min(max(held, low), high)
        label = None if kind in named or one.status == "chosen" else kind
        named |= {label} if label else set()
        if one.interval and kind != "dropped" and low < shown < high:  # those had too few episodes to say much
            axes.plot([place, place], list(one.interval), color=style["color"], linewidth=1.2, alpha=0.55, zorder=2)
            labels.block_line(place, *one.interval)
        marker = style["marker"] if low < held < high else "v" if held <= low else "^"
        (mark,) = axes.plot([place], [shown], linestyle="", zorder=2.5, label=label, **{**style, "marker": marker})
        mark.set(gid=f"member-{one.index}", clip_on=False, markeredgecolor=PAPER, markeredgewidth=0.6)
        labels.block(place, shown)


def _chosen(axes: Axes, labels: Labels, claim: Claim | None, result: Json) -> None:
    """The student that the run ends with, as judged on seeds that chose nothing."""
    if claim is None:
        return
    params, held, ends = claim
    low, high = axes.get_ylim()
    shown = min(max(held, low), high)
    if ends:
        axes.errorbar(
            [params],
            [shown],
            [[max(shown - ends[0], 0)], [max(ends[1] - shown, 0)]],
            color=INK,
            linewidth=1.6,
            capsize=4,
            zorder=3.5,
        )
        labels.block_line(params, *ends)
    label = "chosen, on fresh seeds"
    (mark,) = axes.plot([params], [shown], "*", color=CHOSEN, markersize=18, linestyle="", label=label, zorder=4)
    mark.set(gid="chosen", clip_on=False, markeredgecolor=INK, markeredgewidth=1.0)
    labels.block(params, shown, 11)
    fewer = number(result.get("compression"))
    parameters = f"{params:,.0f} parameters" + (f", {times(fewer)} × fewer" if fewer and fewer > 1 else "")
    interval_words = f" ({percent(ends[0])} to {percent(ends[1])})" if ends else ""
    labels.put(
        f"{parameters}\n{percent(held)}{interval_words}", (params, shown), weight="bold", must=True, bbox=_BEHIND
    )


def _shapes(labels: Labels, members: Sequence[Member], claim: Any) -> None:
    """Widths and depths beside the marks, the best of each size first, where there is room."""
    best = sorted(members, key=lambda one: (one.status == "dropped", one.status == "failed", -(one.retention or 0.0)))
    seen: set[str] = set()
    for one in best[:60]:
        if one.shape and one.status != "dropped" and one.shape not in seen and one.params is not None:
            seen.add(one.shape)
            if not (one.status == "chosen" and claim):
                labels.put(one.shape, (one.params, one.retention or 0.0), size=8, color=QUIET)
