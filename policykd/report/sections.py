"""The parts of report.html in words: headline, verdict, diagnosis, configuration, environment."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from policykd.report.facts import Facts, Json, interval, number, section, words
from policykd.report.frontier_plot import gate_words
from policykd.report.html import Child, Safe, element
from policykd.report.table import duration, figure, percent, times

_PACKAGES = ("policykd", "torch", "gymnasium", "stable-baselines3", "sb3-contrib", "numpy", "scipy", "safetensors")


def text_of(value: Any, otherwise: str = "-") -> str:
    """A text as it is, a number as a figure; anything else, `otherwise`."""
    if isinstance(value, str):
        return words(value) or value
    found = number(value)
    return otherwise if found is None else figure(int(found) if found.is_integer() else found)


def share_of(value: Any) -> str:
    """`98.7 %`, or a dash."""
    found = number(value)
    return "-" if found is None else percent(found)


def interval_of(value: Any) -> str:
    """`97.3 % to 101.1 %`, or a dash."""
    ends = interval(value)
    return "-" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"


def panel(name: str, title: str, *children: Child) -> Safe:
    """A section of the page with an anchor."""
    return element("section", element("h2", title), *children, id=name)


def listed(name: str, headings: Iterable[tuple[str, str]], rows: Iterable[Safe]) -> Safe:
    """A table of these rows, which scrolls where it is too wide; `headings` with their titles, `name` for screen
    readers."""
    head = (element("th", heading, scope="col", title=title or None) for heading, title in headings)
    table = element("table", element("thead", element("tr", *head)), element("tbody", *rows), class_="listed")
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


def title_of(facts: Facts) -> str:
    """Environment and sizes in one line."""
    teacher, student = section(facts.result, "teacher"), section(facts.result, "student")
    sizes = f"{text_of(teacher.get('params'), '?')} → {text_of(student.get('params'), '?')} parameters"
    return f"{text_of(teacher.get('algo'), 'teacher')} on {text_of(facts.result.get('env'), '?')}: {sizes}"


def headline(facts: Facts) -> Safe:
    """Who became whom, the verdict, and the figures that matter most."""
    teacher = section(facts.result, "teacher")
    sha = text_of(teacher.get("sha256"), "")
    origin = f"Teacher: {text_of(teacher.get('source'))}" + (f", sha256 {sha[:16]}…" if sha else "")
    return element(
        "header",
        element("h1", title_of(facts)),
        element("p", origin, class_="quiet"),
        _verdict(facts),
        element("dl", *_cards(facts.result), class_="cards"),
    )


def _verdict(facts: Facts) -> Safe:
    gate = section(facts.result, "gate")
    asked, keep, margin = gate_words(gate), number(gate.get("keep")), number(gate.get("margin"))
    if asked is None or keep is None or margin is None:
        return element(
            "p", "No gate was asked for (--keep): the figures below are all that is claimed.", class_="verdict"
        )
    passed = gate.get("passed") is True
    lower, needed = _apart(number(gate.get("lower")), keep - margin)
    return element(
        "p",
        element("b", "Passed: " if passed else "Failed: "),
        asked,
        f". The lower end of the {_level(gate)}interval{_attempt(facts, gate)} is {lower}; at least {needed} was "
        "needed.",
        class_=f"verdict {'good' if passed else 'bad'}",
    )


def _level(gate: Json) -> str:
    """`97.5 % `: of the interval with the attempt's error on each side; nothing where a run does not say it."""
    error = number(gate.get("error"))
    return f"{100 * (1 - 2 * error):.4g} % " if error is not None and 0 < error < 0.5 else ""


def _attempt(facts: Facts, gate: Json) -> str:
    """`, attempt 2 of at most 3 on fresh seeds,`; where all failed, of the best of them."""
    own, most = number(gate.get("attempts")), number(section(facts.config, "search").get("attempts"))
    if own is None:
        return ""
    if gate.get("passed") is not True and own > 1:
        return f" of the best of {own:.0f} attempts on fresh seeds"
    return f", attempt {own:.0f}{f' of at most {most:.0f}' if most is not None and most >= own else ''} on fresh seeds,"


def _apart(lower: float | None, needed: float) -> tuple[str, str]:
    """Both as shares, with as many digits as tell them apart."""
    if lower is None:
        return "-", percent(needed)
    pairs = [(percent(lower), percent(needed))]
    pairs += [(f"{100 * lower:.{digits}f} %", f"{100 * needed:.{digits}f} %") for digits in range(2, 6)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])


def _cards(result: Json) -> Iterable[Safe]:
    teacher, student = section(result, "teacher"), section(result, "student")
    held = section(result, "retention")
    sizes = f"{text_of(teacher.get('params'))} → {text_of(student.get('params'))}"
    fewer = number(result.get("compression"))
    yield _card("parameters", sizes, "" if fewer is None else f"{times(fewer)} × fewer")
    yield _card("retention", share_of(held.get("value")), f"95 % interval {interval_of(held.get('ci95'))}")
    means = [number(section(side, "return").get("mean")) for side in (student, teacher, section(result, "random"))]
    own, others, chance = (figure(mean) for mean in means)
    yield _card("return", own, f"teacher {others}, random {chance}")
    yield _card("agreement", share_of(result.get("agreement")), "of the student's states")
    worst = section(result, "worst_decile")
    yield _card("worst tenth", text_of(worst.get("student")), f"teacher {text_of(worst.get('teacher'))}")
    if number(result.get("success")) is not None:
        yield _card("success", share_of(result["success"]), "of the episodes")
    yield _card("file", f"{text_of(student.get('bytes'))} bytes", f"{text_of(student.get('macs'))} MACs an action")
    total = number(section(result, "seconds").get("total"))
    spent = "-" if total is None or total < 0 else duration(total)
    yield _card("the run took", spent, f"{text_of(result.get('timesteps'))} timesteps")


def _card(name: str, value: str, rest: str) -> Safe:
    return element("div", element("dt", name), element("dd", element("b", value), element("span", rest)))


def diagnosis(facts: Facts) -> Safe | None:
    """What the search says of its limits, and the run's notes; None where neither says a thing."""
    found = section(facts.result, "diagnosis")
    limit = words(found.get("limit"))
    lines = [line for key in (found.get("lines"), facts.result.get("notes")) for line in _texts(key)]
    if not lines and limit is None:
        return None
    head = element("p", "What limits the students: ", element("b", limit), ".") if limit is not None else None
    return panel("diagnosis", "Diagnosis", head, element("ul", *(element("li", line) for line in lines)))


def _texts(value: Any) -> list[str]:
    """The lines of a list, as many as a person reads."""
    return [line for line in map(words, value[:200]) if line is not None] if isinstance(value, list) else []


def configuration(facts: Facts) -> Safe:
    """config.yaml as it is."""
    text = facts.config_text or "(this folder has no config.yaml)"
    box = {"tabindex": "0", "role": "region", "aria_label": "config.yaml"}
    return panel("configuration", "Configuration", element("pre", element("code", text.rstrip("\n")), **box))


def environment(facts: Facts) -> Safe:
    """Where it was played, on what it ran, and the versions."""
    result, env = facts.result, section(facts.config, "env")
    seeds = section(result, "seeds")
    played: list[tuple[str, Child]] = [
        ("environment", text_of(result.get("env"))),
        ("arguments", _plain(env.get("kwargs"))),
        ("wrappers", _plain(env.get("wrappers"))),
        ("the student's", _plain(section(facts.config, "student").get("wrappers"))),
        ("backend", text_of(result.get("backend"))),
        ("device", text_of(result.get("device"))),
        ("judged", {True: "by the mode", False: "by samples"}.get(result.get("deterministic") is not False)),
        ("report episodes", f"{text_of(result.get('episodes'))}, seeds {_plain(seeds.get('report'))}"),
        ("selection seeds", _plain(seeds.get("select"))),
        ("training seed", text_of(seeds.get("train"))),
        ("seconds", _seconds(section(result, "seconds"))),
    ]
    versions: list[tuple[str, Child]] = [("run by policykd", text_of(result.get("policykd")))]
    versions += [("Python", platform.python_version()), ("system", f"{platform.system()} {platform.machine()}")]
    versions += [(name, _version(name)) for name in _PACKAGES]
    return panel(
        "environment",
        "Environment and versions",
        element(
            "div",
            element("div", element("h3", "The run"), _facts_table(played)),
            element("div", element("h3", "Where this page was written"), _facts_table(versions)),
            class_="two",
        ),
    )


def _facts_table(rows: list[tuple[str, Child]]) -> Safe:
    body = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows]
    return element("table", element("tbody", *body), class_="facts")


def _plain(value: Any) -> str:
    """Small data in one line: `0 to 9` of a pair of seeds, else as it would stand in YAML."""
    ends = interval(value)
    if ends is not None:
        return f"{ends[0]:.0f} to {ends[1]:.0f}"
    if value in (None, [], {}) or not isinstance(value, Mapping | list | str | int | float):
        return "-"
    return str(value)[:500]


def _seconds(spent: Json) -> str:
    known = [(name, number(value)) for name, value in spent.items()]
    return ", ".join(f"{name} {value:.1f}" for name, value in known if value) or "-"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
