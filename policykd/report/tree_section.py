"""A decision tree in report.html: its picture and its rules."""

from __future__ import annotations

from policykd.report.facts import Facts, section
from policykd.report.html import Safe, element
from policykd.report.pictures import inlined
from policykd.report.sections import panel
from policykd.spine.errors import InputError
from policykd.students.load import load_student
from policykd.students.rules import rules_of
from policykd.students.tree import TreeStudent

_MOST_LINES = 600


def student_of(facts: Facts) -> TreeStudent | None:
    """The run's student where it is a tree that can be read, else None."""
    if section(facts.config, "student").get("kind") != "tree":
        return None
    try:
        student = load_student(facts.folder)
    except InputError:
        return None
    return student if isinstance(student, TreeStudent) else None


def tree(facts: Facts, svg: str | None) -> Safe | None:
    """A section of the page, with the picture `svg`; None for a student that is no tree."""
    student = None if svg is None else student_of(facts)
    if student is None or svg is None:
        return None
    label = f"The decision tree: {len(student.nodes.value)} leaves."
    drawing = element(
        "div", inlined(svg, "tree-", label), class_="scroll", tabindex="0", role="region", aria_label=label
    )
    lines = rules_of(student).splitlines()
    cut = [] if len(lines) <= _MOST_LINES else [f"... and {len(lines) - _MOST_LINES} lines more in rules.txt"]
    return panel(
        "tree",
        "The tree",
        element(
            "p", "Left: yes, right: no. In the units of the environment; rules.txt holds all of it.", class_="quiet"
        ),
        element("figure", drawing, class_="picture"),
        element("h3", "As rules"),
        element("pre", "\n".join([*lines[:_MOST_LINES], *cut])),
    )
