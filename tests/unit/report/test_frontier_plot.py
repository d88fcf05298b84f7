"""Fails when the picture lacks a member, the teacher, the gate or the chosen student, when labels cover each other, or
when the user's matplotlib settings change it."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from policykd.report.charts import Line, bars, lines, ticks
from policykd.report.frontier_plot import draw, gate_words, settings
from policykd.report.pictures import inlined
from tests.support.run_folders import frontier, member, result


@pytest.fixture
def drawn() -> Any:
    """Draws documents; the settings stay until the test is over."""
    with settings():
        yield draw


def _lines(figure: Figure) -> dict[str, Any]:
    return {line.get_gid(): line for line in figure.axes[0].lines if line.get_gid()}


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_everything_is_drawn_where_the_documents_say(drawn: Any) -> None:
    figure = drawn(frontier(), result())
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    marks = _lines(figure)
    assert {name for name in marks if name != "chosen"} == {f"member-{index}" for index in (0, 1, 3, 4, 5)}
    assert (marks["member-3"].get_xdata()[0], marks["member-3"].get_ydata()[0]) == (56, 0.93)
    assert (marks["chosen"].get_xdata()[0], marks["chosen"].get_ydata()[0]) == (76, 0.994), "the claim, on fresh seeds"
    across = [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert across == [1.0, pytest.approx(0.97)], "the teacher's line, and the gate's at keep - margin"
    (teacher,) = (line for line in axes.lines if line.get_marker() == "D")
    assert list(teacher.get_xdata()) == [4996]
    said = " ".join(_texts(figure)).replace("\n", " ")
    for words in ("non-inferior to 99 %, margin 2 points", "teacher: 4,996 parameters", "76 parameters, 65.7 × fewer"):
        assert words in said
    uprights = [line for line in axes.lines if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1]
    assert sorted(tuple(line.get_ydata()) for line in uprights if line.get_marker() == "None")[:2] == [
        (0.9, 0.96),
        (0.972, 1.01),
    ]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["teacher", "dropped", "failed", "passed", "chosen, on fresh seeds"]


def test_kinds_differ_in_shape_as_well_as_in_colour(drawn: Any) -> None:
    marks = _lines(drawn(frontier(), result()))
    kinds = [marks[name] for name in ("member-0", "member-3", "member-5", "chosen")]
    assert len({mark.get_marker() for mark in kinds}) == len({mark.get_color() for mark in kinds}) == 4


def test_labels_cover_neither_each_other_nor_a_mark(drawn: Any) -> None:
    crowd = [member(16 + 3 * i, 0.9 + 0.002 * i, "passed", width=i) for i in range(40)]
    figure = drawn({"members": crowd, "gate": None}, result())
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert 5 < len(boxes) < 40, "some find no room, and are left out"
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for mark in _lines(figure).values():
        centre = figure.axes[0].transData.transform((mark.get_xdata()[0], mark.get_ydata()[0]))
        assert not any(box.contains(*centre) for box in boxes)


def test_a_collapsed_student_does_not_hide_the_rest(drawn: Any) -> None:
    figure = drawn({"members": [member(16, -50.0, "failed"), member(60, 1.0, "passed")]}, result())
    low, high = figure.axes[0].get_ylim()
    assert low > -0.5 and high < 1.5
    assert _lines(figure)["member-0"].get_marker() == "v", "it is drawn at the border, pointing there"


@pytest.mark.parametrize(
    ("documents", "marks"),
    [
        ((None, result()), {"member-0", "chosen"}),
        ((None, result(teacher={"params": None}, compression=None)), {"member-0", "chosen"}),
        (({"members": [], "gate": None}, {"format": 1}), set()),
        (({"members": [member(5, 1.0, "chosen")]}, {"format": 1}), {"member-0"}),
    ],
    ids=["one student", "a teacher of unknown size", "nothing", "no claim"],
)
def test_fewer_facts(drawn: Any, documents: tuple[Any, Any], marks: set[str]) -> None:
    assert set(_lines(drawn(*documents))) == marks


def test_users_settings_change_nothing_and_are_left_alone() -> None:
    mpl.rcParams["axes.facecolor"] = "red"
    mpl.rcParams["font.size"] = 40
    try:
        with settings():
            figure = draw(frontier(), result())
            assert mpl.rcParams["font.size"] == 10
        assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)
        assert mpl.rcParams["font.size"] == 40
        assert all(isinstance(text, Annotation) for text in figure.axes[0].texts)
    finally:
        mpl.rcdefaults()


def test_gate_in_words() -> None:
    assert gate_words({"keep": 0.99, "margin": 0.02}) == "non-inferior to 99 %, margin 2 points"
    assert gate_words({"keep": 0.985, "margin": 0.01}) == "non-inferior to 98.5 %, margin 1 point"
    assert gate_words({"keep": "0.99"}) is None


def test_an_inlined_picture_has_ids_and_colours_of_the_page() -> None:
    svg = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" width="5pt" viewBox="0 0 5 5">'
        '<!-- <b> --><defs><path id="p"/></defs><g clip-path="url(#p)">'
        '<use xlink:href="#p" style="fill: #0072b2"/></g></svg>'
    )
    built = inlined(svg, "x-", '"label"')
    assert 'id="x-p"' in built and "url(#x-p)" in built and 'href="#x-p"' in built
    assert "fill: var(--passed)" in built and "<!--" not in built and "width=" not in built
    assert built.startswith('<svg role="img" aria-label="&quot;label&quot;" viewBox="0 0 5 5">')


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (243, 257.5, [245, 250, 255]),
        (-1.2e-5, 3e-5, [-1e-5, 0, 1e-5, 2e-5, 3e-5]),
        (7, 7, [7]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_charts_of_little() -> None:
    assert bars([0.0], ["tip <"], ("a", "b"), "t").count("<rect") == 1
    flat = lines([Line([(5.0, 1.0)], "one"), Line([(5.0, 1.0)], "two", lit=True)], None, "t", as_percent=True)
    assert flat.count("<polyline") == 2 and "nan" not in flat
