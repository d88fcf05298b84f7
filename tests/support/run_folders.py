"""Finished run folders made by hand: every optional key of frontier.json, none of them, and a stranger's text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HOSTILE = '</script></style><img src=x onerror="document.title=1">&"\'$x^2_\\frac{$]]>--><!--\u202e\x1b[31m'


def result(**changes: Any) -> dict[str, Any]:
    """A result.json as a run with a gate writes it."""
    summary = {"mean": 244.3, "std": 20.0, "ci95": [240.0, 248.6]}
    document = {
        "format": 1,
        "policykd": "0.1.0",
        "device": "cpu",
        "backend": "sync",
        "deterministic": True,
        "env": "LunarLander-v3",
        "teacher": {
            "source": "teachers/ppo/LunarLander-v2_1",
            "sha256": "a" * 64,
            "algo": "ppo",
            "params": 4996,
            "constants": 0,
            "macs": 4800,
            "return": summary,
        },
        "student": {
            "file": "student.safetensors",
            "params": 76,
            "constants": 16,
            "macs": 64,
            "bytes": 3400,
            "return": summary,
        },
        "random": {"return": {**summary, "mean": -181.3}},
        "retention": {"value": 0.994, "ci95": [0.9731, 1.011]},
        "compression": 4996 / 76,
        "gate": {"keep": 0.99, "margin": 0.02, "lower": 0.9731, "attempts": 3, "passed": True},
        "agreement": 0.87,
        "worst_decile": {"teacher": 180.0, "student": 171.0},
        "success": None,
        "episodes": 100,
        "seeds": {"train": 0, "select": [1000000, 1000019], "report": [10000, 10099]},
        "timesteps": 93120,
        "seconds": {"collect": 5.5, "update": 6.3, "total": 27.8},
        "notes": [],
        "diagnosis": {"limit": "capacity", "lines": ["Below 56 parameters more data does not help."]},
        "robust": {
            "episodes": 20,
            "seeds": [10000, 10019],
            "conditions": {
                "clean": condition({}, 0.994),
                "noise": condition({"noise": 0.05}, 0.981),
                "delay": condition({"delay": 1}, 0.97),
                "drop": condition({"drop": 0.2}, None),
                "parameters": condition({"parameters": {"gravity": [0.8, 1.2], "model.mass": [0.5, 2]}}, 0.93),
                "together": condition({"noise": 0.05, "delay": 1, "drop": 0.2}, 0.905),
            },
        },
        "progressive": {"chosen": 2, "steps": [_step(1, 16, 0.9), _step(2, 4, 0.875)]},
        "tasks": {
            "params": 90,
            "compression": 55.5,
            "retention": {"mean": 0.972, "worst": 0.95},
            "each": [_task("LunarLander-v3", 0.994), _task("Pendulum-v1", 0.95)],
        },
    }
    several = [_teacher("a.zip", "ppo", 0.75), _teacher("b.zip", "dqn", 0.25)]
    document["teacher"]["ensemble"] = {"how": "product", "teachers": several}
    return {**document, **changes}


def _teacher(source: str, algo: str, weight: float) -> dict[str, Any]:
    return {"source": source, "sha256": "b" * 64, "algo": algo, "params": 4996, "weight": weight}


def _step(number: int, width: int, held: float) -> dict[str, Any]:
    file = f"steps/{number}/student.safetensors"
    return {"file": file, "width": width, "params": 76, "return": 231.5, "retention": held, "timesteps": 4000}


def _task(env: str, held: float) -> dict[str, Any]:
    summary = {"mean": 231.5, "std": 20.0, "ci95": [227.2, 235.8]}
    return {
        "env": env,
        "teacher": {"source": "t.zip", "sha256": "c" * 64, "algo": "ppo", "params": 4996, "return": summary},
        "student": {"file": f"student-{env}.safetensors", "params": 76, "return": summary},
        "random": {"return": summary},
        "retention": {"value": held, "ci95": [held - 0.03, held + 0.02]},
        "agreement": 0.9,
        "episodes": 100,
        "timesteps": 4000,
    }


def rows_of(text: str) -> list[list[str]]:
    """The cells of a section's table, row by row."""
    rows = (re.sub(r"<[^>]+>", "|", row) for row in re.findall(r"<tr>(.*?)</tr>", text.split("<tbody>")[1]))
    return [[cell.strip() for cell in row.split("|") if cell.strip()] for row in rows]


def condition(settings: dict[str, Any], held: float | None) -> dict[str, Any]:
    """One of `robust.conditions`; None: the teacher is no better than random."""
    sides = {
        who: {"return": {"mean": mean, "std": 20.0, "ci95": [mean - 4.3, mean + 4.3]}, "action_change": change}
        for who, mean, change in (("teacher", 240.25, 0.25), ("student", 231.5, 0.375), ("random", -181.3, None))
    }
    known = None if held is None else {"value": held, "ci95": [held - 0.03, held + 0.02], "interval": "bootstrap"}
    return {"settings": settings, **sides, "retention": known}


def member(params: int, held: float | None, status: str, **more: Any) -> dict[str, Any]:
    """An entry of frontier.json with the keys that every version writes."""
    plain = {"width": params // 14, "depth": 1, "seed": 0, "params": params, "constants": 16, "macs": params - 5}
    return {**plain, "retention": held, "agreement": None, "latency_us": None, "episodes": 20, "status": status, **more}


def frontier() -> dict[str, Any]:
    """A frontier.json with every optional key, and nulls among them."""
    full: dict[str, Any] = {"bytes": 3400, "agreement": 0.87, "latency_us": 0.91, "episodes": 60, "train_kl": 0.021}
    full |= {"validation_kl": 0.034, "curve": [[11640, 0.4], [46560, 0.9], [93120, 0.99]]}
    members = [
        member(20, 0.31, "dropped", interval=None, curve=[[11640, 0.3], [23280, 0.31]]),
        member(1476, 1.001, "passed", interval=[0.98, 1.02], latency_us=2.5, train_kl=1e-05),
        member(420, None, "dropped", width=None, macs=None),
        member(56, 0.93, "failed", interval=[0.9, 0.96], latency_us=10.25, bytes=3300),
        member(76, 0.991, "chosen", interval=[0.972, 1.01], **full),
        member(212, 0.9999, "passed", interval=[0.975, 1.015]),
    ]
    gate = result()["gate"]
    return {"format": 1, "gate": gate, "teacher": {"params": 4996, "return": 244.3}, "members": members}


def analysis() -> dict[str, Any]:
    """An analysis.json."""
    return {
        "format": 1,
        "states": 900,
        "episodes": 10,
        "features": 2,
        "differ": 0.16,
        "entropy": {
            "mean": 0.7,
            "quantiles": {"0": 0.0, "0.5": 0.69, "0.95": 1.2, "1": 1.3},
            "histogram": {"edges": [0.0, 0.65, 1.3], "count": [300, 600]},
        },
        "by_entropy": {
            "name": "entropy of the teacher",
            "edges": [0.0, 0.65, 1.3],
            "values": None,
            "share": [0.02, 0.23],
            "count": [300, 600],
            "spread": 0.1,
        },
        "sensitivity": [
            {"name": "obs[1]", "student": 0.5, "teacher": 0.4},
            {"name": "obs[0]", "student": 0.0, "teacher": 0.25},
        ],
        "disagreement": [
            {
                "name": "position[0]",
                "edges": [-1.0, 0.0, 1.0],
                "values": None,
                "share": [0.02, 0.3],
                "count": [450, 450],
                "spread": 0.14,
            },
            {
                "name": "gear",
                "edges": [0, 0.5, 1],
                "values": [0, 1],
                "share": [0.1, 0.2],
                "count": [400, 500],
                "spread": 0.05,
            },
        ],
    }


CONFIG = "teacher: teachers/ppo/LunarLander-v2_1\ntrust: false\nenv:\n  id: LunarLander-v3\n  allow_import: false\n"


def write_run(folder: Path, **documents: Any) -> Path:
    """A run folder with `result`, `frontier`, `analysis` (None: no such file) and the text `config`."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {"result": result(), "frontier": frontier(), "analysis": analysis(), **documents}
    (folder / "config.yaml").write_text(chosen.pop("config", CONFIG), "utf-8")
    for name, document in chosen.items():
        if document is not None:
            (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
    return folder


def poisoned(document: Any, text: str = HOSTILE) -> Any:
    """The document with `text` behind every string in it, and as a key of every object."""
    if isinstance(document, dict):
        return {**{key: poisoned(value, text) for key, value in document.items()}, text: text}
    if isinstance(document, list):
        return [poisoned(value, text) for value in document]
    return document + text if isinstance(document, str) else document
