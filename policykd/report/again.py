"""The part of report.html that says what to type: the run again, judged again, exported and watched."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from policykd.report.facts import Facts, interval, number, section, words
from policykd.report.html import Safe, element, join
from policykd.report.sections import panel
from policykd.spine.wrappers import imports

_LIVE, _FUNCTION = "live ", "function:"


def commands(facts: Facts) -> Safe:
    """What to type in the run's folder to repeat it, judge it again, export and watch it; nothing that is refused."""
    teacher, name = _teacher(facts), words(section(facts.config, "env").get("id")) or ""
    live, function = teacher is not None and teacher.startswith(_LIVE), name.startswith(_FUNCTION)
    wrapped = any(map(imports, _wrappers(facts)))
    verb = "shrink" if "diagnosis" in facts.result else "distill"
    lines, notes = [], []
    if live:
        notes.append(f"The teacher was a live model: give it again, policykd.{verb}(config, teacher=model).")
    if function:
        notes.append(f"The environment was a Python function: give it again, policykd.{verb}(config, env=function).")
    elif wrapped:
        notes.append("Its own wrappers are named in Python: policykd.api.evaluate('.', env=EnvConfig(...)).")
    if not live and not function:
        lines.append(f"policykd {verb} --config config.yaml --out again{_trust(facts)}{_imports(facts)}")
    if function or wrapped:
        lines.append("policykd export . --to onnx,c --vectors synthetic --episodes 0")
    else:
        lines += _of_the_student(facts, name, None if live else teacher)
        if "envpool" in (facts.result.get("backend"), section(facts.config, "env").get("backend")):
            notes.append("evaluate judges in single environments, whose episodes differ from those of envpool above.")
    box = {"tabindex": "0", "role": "region", "aria_label": "Commands"}
    return panel(
        "commands",
        "Again",
        element("p", " ".join(["In this run's folder.", *notes]), class_="quiet"),
        element("pre", element("code", join("\n".join([*lines, "policykd report ."]))), **box),
    )


def _of_the_student(facts: Facts, name: str, teacher: str | None) -> list[str]:
    """Judging it on the seeds of the report, exporting it, filming it beside its teacher."""
    config, trust = facts.config, _trust(facts)
    where = (f" --env {shlex.quote(name)}" if imports(name) else "") + _imports(facts)
    episodes, seeds = number(facts.result.get("episodes")), interval(section(facts.result, "seeds").get("report"))
    judged = (f" --episodes {episodes:.0f}" if episodes else "") + (f" --seed {seeds[0]:.0f}" if seeds else "")
    how = facts.result.get("deterministic", section(config, "evaluate").get("deterministic"))
    judged += " --stochastic" if how is False else ""
    taught = "" if teacher is None else f" --teacher {shlex.quote(teacher)}"
    given = words(config.get("vec_normalize"))
    statistics = f" --vec-normalize {shlex.quote(given)}" if given is not None and taught else ""
    beside = "" if statistics else taught  # play takes no statistics; it finds this teacher and them in config.yaml
    return [
        f"policykd evaluate .{taught}{statistics}{judged}{trust}{where}",
        f"policykd export . --to onnx,c{where}",
        f"policykd play .{beside} --video both.mp4{trust}{where}",
    ]


def _teacher(facts: Facts) -> str | None:
    """As config.yaml has it, with its whole path; result.json says what the user wrote in another folder."""
    source = words(section(facts.result, "teacher").get("source"))
    return source if source is not None and source.startswith(_LIVE) else words(facts.config.get("teacher")) or source


def _wrappers(facts: Facts) -> list[str]:
    """The names of the environment's wrappers, the student's own among them."""
    listed = [section(facts.config, name).get("wrappers") for name in ("env", "student")]
    entries = [entry for part in listed if isinstance(part, list) for entry in part]
    named = [name for entry in entries for name in (entry if isinstance(entry, Mapping) else [entry])]
    return [name for name in named if isinstance(name, str)]


def _trust(facts: Facts) -> str:
    return " --trust" if facts.config.get("trust") is True else ""


def _imports(facts: Facts) -> str:
    return " --allow-import" if section(facts.config, "env").get("allow_import") is True else ""
