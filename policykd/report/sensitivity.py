"""What moves the student's action, and where the teacher is sure: of analysis.json, as parts of report.html."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from policykd.report.charts import bars, ranked
from policykd.report.facts import Facts, number, numbers
from policykd.report.html import Safe, element
from policykd.report.sections import panel, text_of
from policykd.report.table import figure, percent

_SHOWN, _SHOWN_ENTROPIES = 16, 4
_HOW = (
    "Each number is shuffled among the visited states, one at a time. With choices the bar is the share of states in "
    "which the action then is another one; with continuous actions it is the part of their variance in which the "
    "number has a hand (total Sobol index, Jansen's estimate). Numbers that depend on each other are torn apart by it. "
    "Thick: student; thin: teacher."
)


def sensitivity(facts: Facts) -> Safe | None:
    """A section of the page; None where analysis.json, which an older version may have written, says none of it."""
    found = facts.analysis or {}
    figures = [_sensitivity(found.get("sensitivity")), _by_entropy(found.get("by_entropy"))]
    figures += _entropies(found.get("disagreement"))
    drawn = [one for one in figures if one is not None]
    if not drawn:
        return None
    return panel(
        "sensitivity",
        "What moves the student, and where the teacher is sure",
        element("p", _HOW, class_="quiet"),
        element("div", *drawn, class_="charts"),
    )


def _sensitivity(listed: Any) -> Safe | None:
    rows = []
    for one in listed[:_SHOWN] if isinstance(listed, list) else []:
        says = one if isinstance(one, Mapping) else {}
        own, theirs = number(says.get("student")), number(says.get("teacher"))
        if own is not None and theirs is not None:
            rows.append((text_of(says.get("name"))[:18], own, theirs))
    if not rows:
        return None
    more = f" The first {_SHOWN} of {len(listed)}." if len(listed) > _SHOWN else ""
    chart = ranked(rows, ("student", "teacher"), "Sensitivity of the action to each number")
    caption = element("figcaption", f"The number that moves the student most comes first.{more}")
    return element("figure", element("h3", "Sensitivity to each number"), chart, caption)


def _by_entropy(says: Any) -> Safe | None:
    """Where the teacher is sure (left) and where it is not, how often the student differs."""
    found = _binned(says, "share")
    if found is None:
        return None
    places, shares, counts = found
    tips = [
        f"{place} nats: they differ in {percent(share)} of {text_of(count)} states"
        for place, share, count in zip(places, shares, counts, strict=True)
    ]
    chart = bars(shares, tips, (f"{places[0]} nats", f"{places[-1]} nats"), "Disagreement over the teacher's entropy")
    caption = element(
        "figcaption",
        "Left the teacher is sure, right it is not. A student that differs on the right alone loses little by it.",
    )
    return element("figure", element("h3", "Disagreement over the teacher's entropy"), chart, caption)


def _entropies(listed: Any) -> list[Safe]:
    """The teacher's mean entropy over those numbers along which it changes most."""
    found = []
    for one in listed[:64] if isinstance(listed, list) else []:
        binned = _binned(one, "entropy")
        if binned is not None:
            places, values, _ = binned
            found.append((max(values) - min(values), text_of(one.get("name")), places, values))
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    drawn = []
    for spread, name, places, values in found[:_SHOWN_ENTROPIES]:
        if spread <= 0:
            continue
        tips = [f"{place}: {figure(value)} nats" for place, value in zip(places, values, strict=True)]
        chart = bars(values, tips, (places[0], places[-1]), f"Entropy of the teacher over {name}", shares=False)
        drawn.append(element("figure", element("h3", f"Entropy of the teacher over {name}, in nats"), chart))
    return drawn


def _binned(says: Any, key: str) -> tuple[list[str], list[float], list[float]] | None:
    """Places in words, values and states of each bin; None where the lists do not fit each other."""
    entry = says if isinstance(says, Mapping) else {}
    edges, values, counts = (numbers(entry.get(name)) for name in ("edges", key, "count"))
    if not edges or not values or not counts or not len(edges) - 1 == len(values) == len(counts) or min(values) < 0:
        return None
    single = numbers(entry.get("values"))
    if single and len(single) == len(values):
        return [figure(value) for value in single], values, counts
    return [f"{figure(a)} to {figure(b)}" for a, b in pairwise(edges)], values, counts
