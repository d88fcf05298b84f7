"""The model card of an export folder."""

from __future__ import annotations

import math
import re
from typing import Any

from policykd.exports.graph import Port
from policykd.exports.interface import interface_from_json
from policykd.spine.spaces import describe_space
from policykd.students.student import Student

_NAME = re.compile(r"[A-Za-z0-9][\w./-]{0,99}", re.ASCII)


def model_card(document: dict[str, Any], student: Student, example: str) -> str:
    """README.md: task, teacher, figures with intervals, limits, what goes in and out, and how to load it."""
    figures, teacher = (_mapping(student.provenance.get(key)) for key in ("figures", "teacher"))
    size, interface = document["size"], interface_from_json(document["interface"])
    rows = [_input(port) for port in interface.ports]
    if interface.mask_size:
        rows.append(f"| `action_masks` | [{interface.mask_size}] | 1 = allowed |")
    if interface.noise_size:
        rows.append(f"| `noise` | [{interface.noise_size}] | {interface.law} noise, drawn anew for every action |")
    if interface.state_size:
        rows += _STATE[document["target"]].format(size=interface.state_size).splitlines()
    tests = document["vectors"]
    return _CARD.format(
        task=_word(figures.get("env")) or "a task that its file does not name",
        target=document["target"],
        algo=_word(teacher.get("algo")) or "unknown",
        sha=_word(teacher.get("sha256"))[:16] or "unknown",
        figures=_figures(figures),
        params=size["params"],
        constants=size["constants"],
        macs=size["macs"],
        cost=_cost(document["facts"]),
        inputs="\n".join(rows),
        action=describe_space(student.action_space),
        mode="sampled with the noise that you give" if interface.noise_size else "the most likely one",
        inside="; ".join(document["inside"]),
        outside="; ".join(document["outside"]) or "nothing",
        vectors=f"{tests['count']} test vectors ({tests['source']})"
        + (f", {tests['sequences']} sequences of {tests['steps']} steps," if interface.state_size else ""),
        memory=_MEMORY.format(how=_HOW[document["target"]]) if interface.state_size else "",
        example=_filled(example, document["facts"], figures),
    )


def _cost(facts: dict[str, Any]) -> str:
    flash, ram = facts.get("flash_bytes"), facts.get("ram_bytes")
    return "" if flash is None else f"; {flash:,} bytes of constants in flash, {ram:,} bytes of RAM"


def _filled(example: str, facts: dict[str, Any], figures: dict[str, Any]) -> str:
    """The example as Markdown, with the names that this export has."""
    names = {"name": "policy", "env": _word(figures.get("env")) or "YOUR-ENVIRONMENT-v0", **facts}
    if facts.get("normalised") == []:  # of an SB3 zip without statistics
        example = "\n".join(line for line in example.splitlines() if "VecNormalize" not in line)
    for key in ("name", "env", "algorithm", "package", "call"):
        example = example.replace("{" + key + "}", str(names.get(key, "")))
    return f"```{'c' if '#include' in example else 'python'}\n{example.strip()}\n```"


def _input(port: Port) -> str:
    what = f"choices, {list(port.nvec)} from {list(port.start)}" if port.nvec else f"raw units ({port.dtype})"
    return f"| `{port.name}` | {list(port.shape)} | {what} |"


def _figures(figures: dict[str, Any]) -> str:
    lines = []
    for who in ("student", "teacher"):
        found = _interval(figures.get(f"{who}_return"), "mean")
        if found is not None:
            lines.append("- {}'s return: {:.4g} (95 % interval {:.4g} to {:.4g})".format(who, *found))
    held, episodes = _interval(figures.get("retention"), "value"), figures.get("episodes")
    if held is not None and isinstance(episodes, int):
        lines.append("- retention: {:.3f} ({:.3f} to {:.3f}) over {} episodes".format(*held, episodes))
    return "\n".join(lines) or "- none are recorded in the student's file"


def _interval(found: Any, key: str) -> tuple[float, float, float] | None:
    """A figure and its interval, where the file holds just that: it may come from anywhere."""
    ends = _mapping(found).get("ci95")
    numbers = [_mapping(found).get(key), *(ends if isinstance(ends, list) else [])]
    if len(numbers) != 3 or not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
        return None
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _mapping(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _word(found: Any) -> str:
    """A name out of a student's file, which goes into Markdown and code: plain names only, else ""."""
    return found if isinstance(found, str) and _NAME.fullmatch(found) else ""


_STATE_ROWS = """\
| `state_in` | [{size}] | what it remembers: the last `state_out` |
| `episode_start` | [] | true: an episode begins, and `state_in` is not looked at |"""
_STATE = {
    "onnx": _STATE_ROWS,
    "torch": _STATE_ROWS,
    "c": "| `state` | [{size}] | what it remembers: your own array, which `policy_act` writes anew |",
}
_HOW = {
    "onnx": "`state_out` of every step goes into `state_in` of the next one, and `episode_start` says where an\n"
    "episode begins",
    "torch": "the last output of every step goes into `state_in` of the next one, and `episode_start` says where an\n"
    "episode begins",
    "c": "call `policy_reset(state)` where an episode begins, and leave the array to `policy_act` until it ends",
}
_MEMORY = """
## Its memory

It remembers what it saw, and acts rightly only when it is asked once for every step of an episode, in their order:
{how}.

What stays from an earlier episode makes it act wrongly without a word. Several environments need a state each.
"""

_CARD = """# A student for {task}, as {target}

A small policy, distilled by policykd from a {algo} teacher (sha256 {sha}...).

{figures}

{params:,} parameters, {constants:,} constants of the normaliser, {macs:,} multiply-accumulates for one action{cost}.

## In and out

| input | shape | units |
|---|---|---|
{inputs}

The action is that of the environment: {action}, {mode}. Inside: {inside}. Left to you: {outside}.
{memory}
## Load it

{example}

## Proof and limits

`manifest.json` holds the sha256 of every file, and {vectors} with their tolerances.
`policykd verify .` replays them on the real runtime, then plays whole episodes with this artifact in the loop
(`--trust` where that runs code). The policy knows the states that its teacher and it have visited; far from them
nothing is promised. Figures hold for the environment named above, in the version that was used.
"""
