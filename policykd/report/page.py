"""report.html: one page with everything about a run, which needs no network and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

from policykd.report import (
    again,
    disturbances,
    frontier_plot,
    members,
    pictures,
    sections,
    sensitivity,
    several,
    tree_picture,
    tree_section,
)
from policykd.report.facts import Facts, read_facts
from policykd.report.html import Safe, element, join
from policykd.spine.files import write_atomic
from policykd.spine.tracker import PICTURE_SUFFIX, write_picture

_ANCHORS = (
    ("picture", "picture"),
    ("diagnosis", "diagnosis"),
    ("table", "members"),
    ("tasks", "tasks"),
    ("steps", "steps"),
    ("teachers", "teachers"),
    ("robust", "disturbances"),
    ("curves", "learning curves"),
    ("tree", "the tree"),
    ("differences", "disagreement"),
    ("sensitivity", "sensitivity"),
    ("configuration", "configuration"),
    ("environment", "versions"),
    ("commands", "commands"),
)


def write_report(folder: Path) -> Path:
    """Writes report.html, frontier.png and frontier.svg of the finished run in `folder`, of a decision tree tree.png
    and tree.svg, and the picture for TensorBoard; returns the page's path.

    The same documents, versions and machine give the same bytes. Raises InputError where the folder holds no finished
    run, or cannot be written.
    """
    facts = read_facts(folder)
    with frontier_plot.settings():
        drawn = frontier_plot.save(frontier_plot.draw(facts.frontier, facts.result), folder)
        student = tree_section.student_of(facts)
        tree = None if student is None else frontier_plot.save(tree_picture.draw(student), folder, "tree").svg
    for old in folder.glob(f"events.out.tfevents.*{PICTURE_SUFFIX}"):
        old.unlink()
    write_picture(folder, "frontier", drawn.png, drawn.size, (folder / "result.json").stat().st_mtime)
    path = folder / "report.html"
    write_atomic(path, page(facts, drawn.svg, tree).encode())
    return path


def page(facts: Facts, svg: str, tree: str | None = None) -> str:
    """The page of a run, with the picture `svg` of its frontier, and that of its `tree` where it has one."""
    script, style = _template("page.js"), _template("page.css")
    parts = {
        "picture": pictures.picture(facts, svg),
        "diagnosis": sections.diagnosis(facts),
        "table": members.members_table(facts),
        "tasks": several.tasks(facts),
        "steps": several.steps(facts),
        "teachers": several.teachers(facts),
        "robust": disturbances.disturbances(facts),
        "curves": pictures.learning_curves(facts),
        "tree": tree_section.tree(facts, tree),
        "differences": pictures.differences(facts),
        "sensitivity": sensitivity.sensitivity(facts),
        "configuration": sections.configuration(facts),
        "environment": sections.environment(facts),
        "commands": again.commands(facts),
    }
    links = [element("a", words, href=f"#{name}") for name, words in _ANCHORS if parts[name] is not None]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"policykd: {sections.title_of(facts)}"),
        element("style", style),
    )
    nav = element("nav", *links, aria_label="Sections")
    body = element("body", element("main", sections.headline(facts), nav, *parts.values()), element("script", script))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _policy(script: Safe) -> str:
    """Nothing is loaded from anywhere, and no script runs but the one with this hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    styles = "style-src 'unsafe-inline'"  # attributes of the picture that matplotlib drew
    return f"default-src 'none'; script-src 'sha256-{digest}'; {styles}; base-uri 'none'; form-action 'none'"


def _template(name: str) -> Safe:
    """One of the package's own files, which stands in the page as it is."""
    return join(Safe((resources.files("policykd.report") / "template" / name).read_text("utf-8")))
