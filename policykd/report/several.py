"""The sections of report.html about runs of more than one: teachers, steps of a chain, tasks of one student."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policykd.report.facts import Facts, Json, number, section
from policykd.report.html import Safe, element
from policykd.report.sections import interval_of, listed, panel, share_of, text_of
from policykd.report.table import figure, tail

_MOST = 100  # rows
_HOW = {
    "mixture": "Their distributions are mixed: the weighted mean.",
    "product": "Their distributions are multiplied: the weighted geometric mean.",
    "value": "In each state the teacher whose own critic expects most speaks, whatever the weights.",
}
_TEACHERS = (("teacher", ""), ("algorithm", ""), ("parameters", "needed to act"), ("weight", "of what the labels say"))
_STEPS = (
    ("step", "each was taught by the one before, the first by the teacher"),
    ("width", "units of a layer"),
    ("parameters", "weights and biases needed to act"),
    ("return", "mean on the selection seeds"),
    ("retention", "of the original teacher, on the selection seeds"),
    ("timesteps", "collected and labelled for this step"),
    ("file", "its student"),
)
_TASKS = (
    ("task", "its environment"),
    ("teacher", "its mean return on the report seeds"),
    ("student", "its mean return on the same seeds"),
    ("random", "the mean return of a random policy"),
    ("retention", "(student - random) / (teacher - random)"),
    ("95 % interval", "of the retention, bootstrap"),
    ("agreement", "with the teacher, of the student's states"),
    ("parameters", "of the task's slice, a student of its own"),
    ("file", "of the slice"),
)


def teachers(facts: Facts) -> Safe | None:
    """Each teacher of an ensemble in a row; None where one taught alone."""
    ensemble = section(facts.result, "teacher", "ensemble")
    rows = [_teacher(one) for one in _entries(ensemble.get("teachers"))]
    how = _HOW.get(text_of(ensemble.get("how")), "")
    return panel("teachers", "The teachers", _quiet(how), listed("The teachers", _TEACHERS, rows)) if rows else None


def steps(facts: Facts) -> Safe | None:
    """Each distillation of a chain in a row; None of a run that is one distillation."""
    found = section(facts.result, "progressive")
    chosen, rows = number(found.get("chosen")), list[Safe]()
    for index, step in enumerate(_entries(found.get("steps")), 1):
        cells = [text_of(step.get("width")), text_of(step.get("params")), _figure(step.get("return"))]
        cells += [share_of(step.get("retention")), text_of(step.get("timesteps"))]
        rows.append(_row(f"{index}, chosen" if chosen == index else str(index), cells, text_of(step.get("file"))))
    told = "Each student taught the next. Retention here is a point estimate on the seeds that chose the best."
    return panel("steps", "Steps", _quiet(told), listed("Steps", _STEPS, rows)) if rows else None


def tasks(facts: Facts) -> Safe | None:
    """Each task of one student in a row; None of a run with one task."""
    found = section(facts.result, "tasks")
    rows = [_task(one) for one in _entries(found.get("each"))]
    if not rows:
        return None
    held = section(found, "retention")
    told = (
        f"One student of {text_of(found.get('params'))} parameters for all: retention {share_of(held.get('mean'))} on "
        f"average, {share_of(held.get('worst'))} at the worst. The figures above are of the first task."
    )
    return panel("tasks", "Tasks", _quiet(told), listed("Tasks", _TASKS, rows))


def _teacher(one: Json) -> Safe:
    cells = [text_of(one.get("algo")), text_of(one.get("params"))]
    return _row(tail(text_of(one.get("source"))), cells, share_of(one.get("weight")))


def _task(one: Json) -> Safe:
    student, held = section(one, "student"), section(one, "retention")
    sides = (section(one, "teacher"), student, section(one, "random"))
    cells = [_figure(section(side, "return").get("mean")) for side in sides]
    cells += [share_of(held.get("value")), interval_of(held.get("ci95")), share_of(one.get("agreement"))]
    return _row(text_of(one.get("env")), [*cells, text_of(student.get("params"))], text_of(student.get("file")))


def _entries(value: Any) -> Iterable[Json]:
    return [one for one in map(section, value[:_MOST]) if one] if isinstance(value, list) else []


def _figure(value: Any) -> str:
    return figure(number(value))


def _quiet(text: str) -> Safe:
    return element("p", text, class_="quiet")


def _row(name: str, cells: list[str], last: str) -> Safe:
    return element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in (*cells, last)))
