"""Fails when a stranger's text becomes markup, when a document of the wrong types breaks the page, when equal documents
give other bytes, or when a folder without a run is not refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policykd.report import frontier_plot, several
from policykd.report.again import commands
from policykd.report.disturbances import disturbances
from policykd.report.facts import interval, members_of, number, points, read_facts
from policykd.report.html import Safe, element
from policykd.report.members import members_table
from policykd.report.page import page, write_report
from policykd.report.sections import diagnosis
from policykd.spine.errors import InputError
from policykd.spine.tracker import TensorBoardTracker
from tests.support.run_folders import (
    HOSTILE,
    analysis,
    condition,
    frontier,
    member,
    poisoned,
    result,
    rows_of,
    write_run,
)

SVG = '<?xml version="1.0"?>\n<svg width="1pt" viewBox="0 0 9 9"><g id="a"/></svg>'


class _Tags(HTMLParser):
    """Every tag, with what it says of events and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in ("src", "href", "xlink:href") and not (value or "").startswith("#")):
                self.outside.append((name, value))


def _page(folder: Path) -> str:
    return page(read_facts(folder), SVG)


def test_text_is_escaped_and_control_characters_are_written_out() -> None:
    built = element("td", HOSTILE, data_value=HOSTILE)
    assert built.count("<") == 2 and built.count(">") == 2 and built.count('"') == 2
    assert "\u202e" not in built and "\x1b" not in built and "\\u202e" in built
    assert element("p", element("b", "<"), None, ["a", Safe("<i></i>")]) == "<p><b>&lt;</b>a<i></i></p>"
    assert element("th", class_="x", title=None, aria_sort="ascending") == '<th class="x" aria-sort="ascending"></th>'
    assert element("pre", "a\nb\ud800") == "<pre>a\nb\\ud800</pre>"


def test_hostile_documents_stay_text(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "plain")
    hostile = write_run(
        tmp_path / "hostile",
        result=poisoned(result()),
        frontier=poisoned(frontier()),
        analysis=poisoned(analysis()),
        config=f"x: '{HOSTILE}",
    )
    found = _Tags(write_report(hostile).read_text("utf-8"))
    assert found.outside == []
    assert found.tags.count("script") == 1 and "img" not in found.tags
    assert set(found.tags) <= set(_Tags(write_report(plain).read_text("utf-8")).tags)


def test_one_page_without_a_network(tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path)).read_text("utf-8")
    addresses = set(re.findall(r"https?://[^\"'<) ]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, addresses
    assert "default-src &#x27;none&#x27;" in text and "unsafe-inline" not in text.split("style-src")[0]
    assert not re.search(r"@import|url\((?!#)", text)


def test_equal_documents_give_equal_bytes(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second")
    for folder in (first, second):
        write_report(folder)
    (first / "report.html").unlink()
    write_report(first)
    for name in ("report.html", "frontier.svg", "frontier.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert not list(first.glob(".*.tmp"))
    assert len(list(first.glob("events*"))) == 1, "a second report takes the place of the first"
    svg = (first / "frontier.svg").read_text("utf-8")
    assert "20" not in re.findall(r"<dc:date>(..)", svg)


def test_the_page_says_where_it_ended(tmp_path: Path) -> None:
    failed = result(gate={"keep": 0.95, "margin": 0.01, "lower": 0.9, "attempts": 2, "passed": False})
    text = _page(write_run(tmp_path, result=failed))
    assert "non-inferior to 95 %, margin 1 point." in text and "Failed: " in text and "Passed: " not in text
    assert "65.7 × fewer" in text and "97.31 % to 101.1 %" in text.replace("97.3 %", "97.31 %")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (2.5, 2.5), (True, None), ("1", None), (None, None), (float("nan"), None), (10**400, None), ([1], None)],
)
def test_numbers(value: Any, expected: float | None) -> None:
    assert number(value) == expected


def test_intervals_and_points() -> None:
    assert interval([1, 2]) == (1, 2)
    assert [interval(value) for value in ([2, 1], [1], "ab", None, [1, None], {"a": 1})] == [None] * 6
    assert points([[3, 1], [1, 2], [1], "x", [None, 1], [2, float("inf")]]) == [(1, 2), (3, 1)]


def test_members_without_a_frontier_are_the_student() -> None:
    (only,) = members_of(None, result())
    assert (only.params, only.retention, only.interval, only.status) == (76, 0.994, (0.9731, 1.011), "chosen")


def test_members_are_in_order_of_size_and_nulls_come_last() -> None:
    listed = [
        member(9, 1.0, "passed"),
        {**member(1, 1.0, "passed"), "params": None},
        "no member",
        member(4, None, "dropped"),
    ]
    assert [one.params for one in members_of({"members": listed}, result())] == [4, 9, None]


def test_cells_hold_exact_values_and_only_known_columns(tmp_path: Path) -> None:
    listed = [member(56, 0.123456789012345, "passed"), member(76, None, "chosen", latency_us=0.1)]
    facts = read_facts(write_run(tmp_path, frontier={"format": 1, "gate": None, "members": listed}))
    table = members_table(facts)
    assert 'data-value="0.123456789012345"' in table and 'data-value="0.1"' in table
    assert table.count("<td>–</td>") == 2, "of the retention and of the latency that are null"
    assert "train KL" not in table and "agreement" not in table


def test_every_disturbance_has_a_row_and_runs_without_any_no_section(tmp_path: Path) -> None:
    text = disturbances(read_facts(write_run(tmp_path / "a"))) or ""
    cells = rows_of(text)
    measured = ["240.2", "231.5", "-181.3"]
    changes, ranges = ["25.0 %", "37.5 %"], "gravity × 0.8 to 1.2, model.mass × 0.5 to 2"
    assert cells == [
        ["none", *measured, "99.4 %", "96.4 % to 101.4 %", *changes],
        ["noise", "0.05", *measured, "98.1 %", "95.1 % to 100.1 %", *changes],
        ["late actions", "1 step", *measured, "97.0 %", "94.0 % to 99.0 %", *changes],
        ["lost observations", "20.0 %", *measured, "-", "-", *changes],
        ["parameters", ranges, *measured, "93.0 %", "90.0 % to 95.0 %", *changes],
        ["all together", *measured, "90.5 %", "87.5 % to 92.5 %", *changes],
    ]
    assert "the same 20 episodes, seeds 10000 to 10019" in text
    plain = write_run(tmp_path / "b", result={key: value for key, value in result().items() if key != "robust"})
    assert disturbances(read_facts(plain)) is None and "Under disturbances" not in _page(plain)
    assert 'href="#robust"' in _page(tmp_path / "a") and 'href="#robust"' not in _page(plain)


def test_each_teacher_step_and_task_has_a_row(tmp_path: Path) -> None:
    facts = read_facts(write_run(tmp_path / "a"))
    found = {"teachers": several.teachers(facts), "steps": several.steps(facts), "tasks": several.tasks(facts)}
    assert rows_of(found["teachers"] or "") == [
        ["a.zip", "ppo", "4,996", "75.0 %"],
        ["b.zip", "dqn", "4,996", "25.0 %"],
    ]
    assert rows_of(found["steps"] or "") == [
        ["1", "16", "76", "231.5", "90.0 %", "4,000", "steps/1/student.safetensors"],
        ["2, chosen", "4", "76", "231.5", "87.5 %", "4,000", "steps/2/student.safetensors"],
    ]
    assert [row[:1] + row[4:7] for row in rows_of(found["tasks"] or "")] == [
        ["LunarLander-v3", "99.4 %", "96.4 % to 101.4 %", "90.0 %"],
        ["Pendulum-v1", "95.0 %", "92.0 % to 97.0 %", "90.0 %"],
    ]
    assert "retention 97.2 % on average, 95.0 % at the worst" in (found["tasks"] or "")
    alone = result(progressive=None, tasks=None, teacher={**result()["teacher"], "ensemble": None})
    plain = _page(write_run(tmp_path / "b", result=alone))
    for name, part in found.items():
        assert (part or "?") in _page(tmp_path / "a") and f'href="#{name}"' in _page(tmp_path / "a")
        assert f'"#{name}"' not in plain and f'id="{name}"' not in plain


def test_channels_are_a_column(tmp_path: Path) -> None:
    listed = [member(56, 0.9, "passed", channels=8)]
    facts = read_facts(write_run(tmp_path, frontier={"format": 1, "gate": None, "members": listed}))
    assert ">channels</button>" in members_table(facts) and 'data-value="8"' in members_table(facts)
    assert ">channels</button>" not in members_table(read_facts(write_run(tmp_path / "mlp")))


def test_commands_are_quoted_and_ask_for_what_the_run_needed(tmp_path: Path) -> None:
    evil = result(teacher={**result()["teacher"], "source": "a b; rm -rf x"})
    config = "trust: true\nenv: {allow_import: true}\n"
    text = commands(read_facts(write_run(tmp_path, result=evil, config=config)))
    assert "--teacher &#x27;a b; rm -rf x&#x27;" in text
    assert "policykd shrink --config config.yaml --out again --trust --allow-import" in text
    assert "--episodes 100 --seed 10000" in text
    live = result(teacher={**result()["teacher"], "source": "live PPO"})
    text = commands(read_facts(write_run(tmp_path / "live", result=live)))
    assert "--teacher" not in text and "live model" in text


def test_no_diagnosis_without_anything_to_say(tmp_path: Path) -> None:
    assert diagnosis(read_facts(write_run(tmp_path / "a", result=result(diagnosis=None, notes=[])))) is None
    found = diagnosis(read_facts(write_run(tmp_path / "b", result=result(diagnosis=None, notes=["as large <as>"]))))
    assert "as large &lt;as&gt;" in (found or "")


def test_curves_come_from_tensorboard_where_the_frontier_has_none(tmp_path: Path) -> None:
    old = {**frontier(), "members": [{**member(14, 0.9, "chosen")}, member(28, 1.0, "passed")]}
    folder = write_run(tmp_path, frontier=old)
    assert "Learning curves" not in _page(folder)
    board = TensorBoardTracker(folder)
    for step in range(5):
        board.scalars({"return/select/d1_w1_s0": 10.0 * step, "return/select/d1_w2_s0": 9.0 * step, "x": 1.0}, step)
    board.close()
    write_report(folder)
    text = _page(folder)
    assert "Return on the selection seeds" in text and text.count('class="line lit"') == 1 and "d1_w2_s0" in text


def test_damaged_events_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path, frontier=None)
    board = TensorBoardTracker(folder)
    board.scalars({"return/select": 1.0}, 1)
    board.close()
    (event,) = folder.glob("events*")
    whole = event.read_bytes()
    for damaged in (whole[:-5], whole[:40] + b"\xff" * 30, b"x" * 100, b""):
        event.write_bytes(damaged)
        write_report(folder)


def test_the_picture_is_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = write_run(tmp_path)
    board = TensorBoardTracker(folder)
    board.scalars({"return/select": 1.0}, 1)
    board.close()
    write_report(folder)
    found = EventAccumulator(str(folder))
    found.Reload()
    assert found.Tags()["images"] == ["frontier"] and found.Tags()["scalars"] == ["return/select"]
    (image,) = found.Images("frontier")
    assert image.encoded_image_string == (folder / "frontier.png").read_bytes()
    assert (image.width, image.height) == (1920, 1000)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no result.json", "give the folder of a finished run"]),
        ("{", ["result.json: not JSON"]),
        ("[]", ["result.json: holds list"]),
        ('{"format": 2}', ["result.json: format is '2', expected 1"]),
        ("[" * 100_000, ["result.json: nested too deeply"]),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(tmp_path: Path, content: str | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content, "utf-8")
    with pytest.raises(InputError) as caught:
        write_report(tmp_path)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_an_unfinished_run_is_sent_back(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(InputError, match="policykd distill --resume"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "none")


_ANYTHING = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.sampled_from((5e-324, 1e-300, 1e29)),
        st.integers(),
        st.integers(10**300, 10**301),
        st.floats(),
        st.text(max_size=5),
    ),
    st.lists(st.one_of(st.none(), st.floats(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def _places(document: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [way for key, value in inner for way in ((*before, key), *_places(value, (*before, key)))]


_DOCUMENTS = {"result": result(), "frontier": frontier(), "analysis": analysis()}
_WAYS = [(name, *way) for name, document in _DOCUMENTS.items() for way in _places(document) if way != ("format",)]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(way=st.sampled_from(_WAYS), value=_ANYTHING)
def test_no_document_breaks_the_page(tmp_path: Path, way: tuple[Any, ...], value: Any) -> None:
    documents = json.loads(json.dumps(_DOCUMENTS))
    inner = documents
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    facts = read_facts(write_run(tmp_path / "run", **documents))
    assert page(facts, SVG).startswith("<!DOCTYPE html>")
    with frontier_plot.settings():
        frontier_plot.draw(facts.frontier, facts.result).draw_without_rendering()


_MANY = 20_000
_PARAMETERS = {"x" * 99 + str(i): [1, 2] for i in range(_MANY)}


@pytest.mark.parametrize(
    "documents",
    [
        {"result": result(env="x" * 10**6, notes=["\u202e" * 10**5] * 3)},
        {"result": result(notes=["x"] * _MANY)},
        {"analysis": {**analysis(), "disagreement": analysis()["disagreement"] * _MANY}},
        {
            "analysis": {
                **analysis(),
                "entropy": {"mean": 1, "histogram": {"edges": [0] * (_MANY + 1), "count": [1] * _MANY}},
            }
        },
        {"frontier": {"members": [member(9, 1.0, "passed", curve=[[j, j] for j in range(_MANY)])] * 9}},
        {"frontier": {"members": [member(9, 1.0, "x" * 10**6)]}},
        {"config": "x" * 10**6},
        {"result": result(robust={"conditions": {"x" * 99 + str(i): condition({}, 1.0) for i in range(9_000)}})},
        {"result": result(robust={"conditions": {"parameters": condition({"parameters": _PARAMETERS}, 1.0)}})},
    ],
    ids=["text", "notes", "features", "bins", "points", "status", "configuration", "disturbances", "parameters"],
)
def test_large_documents_make_no_large_page(tmp_path: Path, documents: dict[str, Any]) -> None:
    assert len(_page(write_run(tmp_path, **documents))) < 500_000
