"""The page in a real browser. Fails when it complains of anything, asks for anything beside the page, does not sort,
shows other numbers than frontier.json, or lets a stranger's text become markup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policykd.report.page import write_report
from tests.support.browser import HOW, Browser, find_browser
from tests.support.run_folders import HOSTILE, analysis, frontier, poisoned, result, write_run

pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason=HOW),
    pytest.mark.xdist_group("browser"),
]

COLUMNS = {
    "status": "status",
    "width": "width",
    "params": "parameters",
    "macs": "MACs",
    "bytes": "bytes",
    "retention": "retention",
    "agreement": "agreement",
    "latency_us": "latency, µs",
    "train_kl": "train KL",
    "validation_kl": "validation KL",
    "episodes": "episodes",
}
_HEADINGS = "Array.from(document.querySelectorAll('#members thead th'), th => th.innerText.trim())"
_CELLS = """Array.from(document.querySelectorAll('#members tbody tr'), row =>
    Array.from(row.cells, cell => cell.dataset.value === undefined ? null : cell.dataset.value))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: Any) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The report of a run with every optional key, opened; nothing was complained of until the test is over."""
    _show(browser, write_run(tmp_path / "run"))
    yield browser
    _assert_quiet(browser)


def _show(browser: Browser, folder: Path) -> None:
    browser.complaints.clear()
    browser.asked.clear()
    browser.open(write_report(folder))


def _assert_quiet(browser: Browser) -> None:
    assert browser.complaints == []
    assert [address for address in browser.asked if not address.endswith("/report.html")] == []


def _column(browser: Browser, heading: str) -> list[Any]:
    place = browser.run(_HEADINGS).index(heading)
    return [None if row[place] is None else row[place] for row in browser.run(_CELLS)]


def _header(browser: Browser, heading: str) -> str:
    return f"#members thead th:nth-child({browser.run(_HEADINGS).index(heading) + 1})"


def _order(browser: Browser, heading: str) -> str | None:
    return browser.run(f"document.querySelector({json.dumps(_header(browser, heading))}).getAttribute('aria-sort')")


def _in_order(values: list[Any], *, descending: bool = False) -> list[Any]:
    known = [value for value in values if value is not None]
    return sorted(known, reverse=descending) + [None] * (len(values) - len(known))


def test_cells_are_what_frontier_json_says(page: Browser) -> None:
    members = sorted(frontier()["members"], key=lambda one: one["params"])
    for key, heading in COLUMNS.items():
        shown = _column(page, heading)
        assert [one if one is None or key == "status" else float(one) for one in shown] == [
            one.get(key) for one in members
        ], key
    low = [None if one is None else float(one) for one in _column(page, "interval")]
    assert low == [(one.get("interval") or [None])[0] for one in members]
    texts = page.run("document.querySelector('#members tbody tr.chosen').innerText")
    assert "76" in texts and "99.1 %" in texts and "97.2 – 101.0 %" in texts


@pytest.mark.parametrize("heading", ["parameters", "retention", "latency, µs", "train KL", "interval", "bytes"])
def test_a_click_sorts_by_number_with_empty_cells_last(page: Browser, heading: str) -> None:
    found = {}
    for _ in range(2):
        page.click(_header(page, heading) + " button")
        order = _order(page, heading)
        found[order] = [None if one is None else float(one) for one in _column(page, heading)]
    assert set(found) == {"ascending", "descending"}
    assert found["ascending"] == _in_order(found["ascending"])
    assert found["descending"] == _in_order(found["descending"], descending=True)
    assert found["ascending"] != found["descending"]
    assert page.run("document.querySelectorAll('#members [aria-sort]').length") == 1
    rows = page.run("Array.from(document.querySelectorAll('#members tbody tr'), row => row.id)")
    assert sorted(rows) == [f"member-{index}" for index in range(6)], "rows were lost"


def test_text_sorts_as_text_and_whole_rows_move(page: Browser) -> None:
    page.click(_header(page, "status") + " button")
    assert _column(page, "status") == ["chosen", "dropped", "dropped", "failed", "passed", "passed"]
    assert [float(one) for one in _column(page, "parameters")] == [76, 20, 420, 56, 212, 1476], "ties keep their order"


def test_the_keyboard_sorts(page: Browser) -> None:
    page.run(f"document.querySelector({json.dumps(_header(page, 'parameters'))} + ' button').focus()")
    page.press("Enter")
    assert _order(page, "parameters") == "descending"
    assert [float(one) for one in _column(page, "parameters")] == [1476, 420, 212, 76, 56, 20]


def test_the_pointer_on_a_row_shows_its_mark(page: Browser) -> None:
    page.click("#member-3 td")
    lit = "Array.from(document.querySelectorAll('#picture .lit'), g => [g.id, getComputedStyle(g).filter !== 'none'])"
    assert page.run(lit) == [["frontier-member-3", True]]
    page.click("#configuration h2")
    assert page.run(lit) == []


def test_every_section_is_there_and_seen(page: Browser) -> None:
    seen = page.run("Array.from(document.querySelectorAll('section'), s => [s.id, s.getBoundingClientRect().height])")
    names = [
        "picture",
        "diagnosis",
        "table",
        "tasks",
        "steps",
        "teachers",
        "robust",
        "curves",
        "differences",
        "sensitivity",
    ]
    names += ["configuration", "environment", "commands"]
    assert [name for name, height in seen if height > 60] == names
    text = page.run("document.body.innerText")
    for words in (
        "Passed: non-inferior to 99 %, margin 2 points",
        "4,996 → 76",
        "attempt 3 on fresh seeds, is 97.3 %",
        "position[0]",
        "What limits the students: capacity",
        "policykd shrink --config config.yaml",
        "allow_import: false",
        "gravity × 0.8 to 1.2",
    ):
        assert words in text
    marks = page.run("Array.from(document.querySelectorAll('#picture g[id^=frontier-member-]'), g => g.id)")
    assert sorted(marks) == [f"frontier-member-{index}" for index in (0, 1, 3, 4, 5)], "one has no retention"
    ids = page.run("Array.from(document.querySelectorAll('[id]'), e => e.id)")
    assert len(ids) == len(set(ids)), "an id stands twice"


def test_nothing_is_wider_than_a_phone(page: Browser) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=780, deviceScaleFactor=2, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 360
    page.call("Emulation.clearDeviceMetricsOverride")


def test_dark_mode_has_dark_paper_and_light_ink(page: Browser) -> None:
    def colours() -> list[int]:
        paint = "getComputedStyle(document.querySelector({})).{}.match(/\\d+/g).slice(0, 3).map(Number)"
        paper = page.run(paint.format("'#picture'", "backgroundColor"))
        label = page.run(paint.format("'#picture svg text, #picture svg g[id*=text] g'", "fill"))
        return [sum(paper), sum(label)]

    for scheme, darker in (("light", 1), ("dark", 0)):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        paper_and_label = colours()
        assert paper_and_label[darker] + 300 < paper_and_label[1 - darker], scheme
    page.call("Emulation.setEmulatedMedia", features=[])


def test_text_of_strangers_stays_text(browser: Browser, tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        result=poisoned(result()),
        frontier=poisoned(frontier()),
        analysis=poisoned(analysis()),
        config=f"teacher: x{HOSTILE[:-6]}\n",
    )
    _show(browser, folder)
    _assert_quiet(browser)
    assert browser.run("document.querySelectorAll('img, iframe, object, embed, link').length") == 0
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.title") != "1"
    assert "onerror" in browser.run("document.body.innerText"), "the text itself is shown"
    browser.click(_header(browser, "parameters") + " button")
    assert _order(browser, "parameters") == "descending"


def test_the_policy_lets_no_other_script_and_no_picture_in(page: Browser) -> None:
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x.png onerror=\"document.title=1\">')")
    page.run("(() => { const s = document.createElement('script'); s.textContent = 'document.title=2'; "
             "document.body.append(s); })()")  # fmt: skip
    assert page.run("document.title") not in ("1", "2")
    assert len(page.complaints) >= 2 and all("Content Security Policy" in line for line in page.complaints)
    page.complaints.clear()
    page.asked.clear()


@pytest.mark.parametrize("kept", [("frontier",), ("analysis",), ()], ids=["family", "one student", "result alone"])
def test_runs_with_fewer_documents(browser: Browser, tmp_path: Path, kept: tuple[str, ...]) -> None:
    missing = {name: None for name in ("frontier", "analysis") if name not in kept}
    plain = {key: value for key, value in result().items() if key not in ("gate", "diagnosis")}
    _show(browser, write_run(tmp_path / "run", result=plain, **missing))
    _assert_quiet(browser)
    assert [float(one) for one in _column(browser, "parameters")] == (
        [20, 56, 76, 212, 420, 1476] if "frontier" in kept else [76]
    )
    assert "No gate was asked for" in browser.run("document.body.innerText")
