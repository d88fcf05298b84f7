"""The model card of an export folder."""

from __future__ import annotations

from typing import Any

from policykd.export.graph import Port
from policykd.export.interface import interface_from_json
from policykd.spine.spaces import describe_space
from policykd.students.mlp import MlpStudent


def model_card(document: dict[str, Any], student: MlpStudent, example: str) -> str:
    """README.md: task, teacher, figures with intervals, limits, what goes in and out, and how to load it."""
    figures = student.provenance.get("figures") or {}
    teacher = student.provenance.get("teacher") or {}
    size, interface = document["size"], interface_from_json(document["interface"])
    rows = [_input(port) for port in interface.ports]
    if interface.mask_size:
        rows.append(f"| `action_masks` | [{interface.mask_size}] | 1 = allowed |")
    if interface.noise_size:
        rows.append(f"| `noise` | [{interface.noise_size}] | {interface.law} noise, drawn anew for every action |")
    return _CARD.format(
        task=figures.get("env") or "a task that its file does not name",
        target=document["target"],
        algo=teacher.get("algo", "unknown"),
        sha=str(teacher.get("sha256", "unknown"))[:16],
        figures=_figures(figures),
        params=size["params"],
        constants=size["constants"],
        macs=size["macs"],
        inputs="\n".join(rows),
        action=describe_space(student.action_space),
        mode="sampled with the noise that you give" if interface.noise_size else "the most likely one",
        inside="; ".join(document["inside"]),
        outside="; ".join(document["outside"]) or "nothing",
        vectors=document["vectors"]["count"],
        source=document["vectors"]["source"],
        example=_filled(example, document["facts"], figures),
    )


def _filled(example: str, facts: dict[str, Any], figures: dict[str, Any]) -> str:
    """The example as Markdown, with the names that this export has."""
    names = {"name": "policy", "env": figures.get("env") or "YOUR-ENVIRONMENT-v0", **facts}
    for key in ("name", "env", "algorithm", "package"):
        example = example.replace("{" + key + "}", str(names.get(key, "")))
    return f"```{'c' if '#include' in example else 'python'}\n{example.strip()}\n```"


def _input(port: Port) -> str:
    what = f"choices, {list(port.nvec)} from {list(port.start)}" if port.nvec else f"raw units ({port.dtype})"
    return f"| `{port.name}` | {list(port.shape)} | {what} |"


def _figures(figures: dict[str, Any]) -> str:
    lines = []
    for who in ("student", "teacher"):
        found = figures.get(f"{who}_return")
        if isinstance(found, dict) and isinstance(found.get("ci95"), list):
            low, high = found["ci95"]
            lines.append(f"- {who}'s return: {found['mean']:.4g} (95 % interval {low:.4g} to {high:.4g})")
    held = figures.get("retention")
    if isinstance(held, dict):
        low, high = held["ci95"]
        lines.append(
            f"- retention: {held['value']:.3f} ({low:.3f} to {high:.3f}) over {figures.get('episodes')} episodes"
        )
    return "\n".join(lines) or "- none are recorded in the student's file"


_CARD = """# A student for {task}, as {target}

A small policy, distilled by policykd from a {algo} teacher (sha256 {sha}...).

{figures}

{params:,} parameters, {constants:,} constants of the normaliser, {macs:,} multiply-accumulates for one action.

## In and out

| input | shape | units |
|---|---|---|
{inputs}

The action is that of the environment: {action}, {mode}. Inside: {inside}. Left to you: {outside}.

## Load it

{example}

## Proof and limits

`manifest.json` holds the sha256 of every file, and {vectors} test vectors ({source}) with their tolerances.
`policykd verify .` replays them on the real runtime, then plays whole episodes with this artifact in the loop
(`--trust` where that runs code). The policy knows the states that its teacher and it have visited; far from them
nothing is promised. Figures hold for the environment named above, in the version that was used.
"""
