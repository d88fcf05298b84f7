"""The table of report.html of teacher and student under disturbances: `robust` of result.json (docs/robust.md)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from policykd.report.facts import Facts, Json, interval, number, section, words
from policykd.report.html import Child, Safe, element
from policykd.report.sections import interval_of, listed, panel, share_of, text_of
from policykd.report.table import figure

_MOST = 20  # rows, and parameters in one of them
_NAMES = {"clean": "none", "together": "all together", "delay": "late actions", "drop": "lost observations"}
_HEADINGS = (
    ("disturbance", ""),
    ("teacher", "its mean return under the disturbance"),
    ("student", "its mean return under the disturbance"),
    ("random", "the mean return of a random policy under the disturbance"),
    ("retention", "(student - random) / (teacher - random), all three under the disturbance"),
    ("95 % interval", "of the retention, bootstrap"),
    ("action change, teacher", "how far its action moves in a step, of its range; of choices the share that changes"),
    ("action change, student", "the same of the student"),
)


def disturbances(facts: Facts) -> Safe | None:
    """Each disturbance in a row; None of a run that was not judged under any."""
    robust = section(facts.result, "robust")
    conditions = section(robust, "conditions")
    rows = [_row(name, section(conditions, name)) for name in islice(conditions, _MOST) if section(conditions, name)]
    if not rows:
        return None
    table = listed("Table of disturbances", _HEADINGS, rows)
    return panel("robust", "Under disturbances", element("p", _how(robust), class_="quiet"), table)


def _how(robust: Json) -> str:
    seeds = interval(robust.get("seeds"))
    where = "" if seeds is None else f", seeds {seeds[0]:.0f} to {seeds[1]:.0f}"
    return (
        f"Teacher, student and random policy on the same {text_of(robust.get('episodes'))} episodes{where}, each "
        "disturbed in the same way. A dash as retention: the teacher itself is no better than random there."
    )


def _row(name: str, found: Json) -> Safe:
    sides = {who: section(found, who) for who in ("teacher", "student", "random")}
    returned = (number(section(side, "return").get("mean")) for side in sides.values())
    held = section(found, "retention")
    cells = [figure(mean) for mean in returned]
    cells += [share_of(held.get("value")), interval_of(held.get("ci95"))]
    cells += [share_of(sides[who].get("action_change")) for who in ("teacher", "student")]
    return element("tr", element("th", *_named(name, found), scope="row"), *(element("td", cell) for cell in cells))


def _named(name: str, found: Json) -> Iterable[Child]:
    """The disturbance and, of one that comes alone, how strong it is."""
    yield _NAMES.get(name) or words(name, 40)
    settings = section(found, "settings")
    if len(settings) == 1:
        yield element("span", f" {_strength(name, next(iter(settings.values())))}", class_="quiet")


def _strength(name: str, value: Any) -> str:
    if name == "drop":
        return share_of(value)
    if name == "delay":
        return f"{text_of(value)} step{'' if number(value) == 1 else 's'}"
    ranges = section(value)
    if not ranges:
        return text_of(value)
    pairs = ((words(path, 60), interval(ends)) for path, ends in islice(ranges.items(), _MOST))
    return ", ".join(f"{path} × {ends[0]:g} to {ends[1]:g}" for path, ends in pairs if ends is not None)
