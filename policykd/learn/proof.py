"""The proof: teacher, student and random policy on the report seeds, which chose nothing; then result.json."""

from __future__ import annotations

from typing import Any

import numpy as np

import policykd
from policykd.evaluation.episodes import Episodes, policy_actor, random_actor, run_episodes
from policykd.evaluation.stats import Retention, retention, return_summary, worst_decile
from policykd.evaluation.watched import agreement_in, watched
from policykd.learn.methods.distill import Distilled
from policykd.learn.notes import notes_of
from policykd.learn.session import Session
from policykd.students.mlp import MlpStudent

_VISITED_FOR_AGREEMENT = 20_000


def prove(session: Session, student: MlpStudent) -> dict[str, Any]:
    """Report episodes of all three; the teacher's and the random policy's are measured once for a run and kept."""
    config, folder, work = session.config, session.folder, session.work
    seeds = session.report_seeds
    facts = folder.load_facts("report") or {}
    with work.stage("report", total=3 * len(seeds)):
        for name in ("teacher", "random"):
            if name in facts:
                work.advance(len(seeds))
                continue
            if name == "teacher":
                actor = policy_actor(session.teacher, config.evaluate.deterministic, config.seed)
            else:
                actor = random_actor(session.teacher.action_space, config.seed)
            facts[name] = _facts(run_episodes(session.spec, actor, seeds, work))
            folder.save_facts("report", facts)
        actor = watched(policy_actor(student, config.evaluate.deterministic, config.seed), session.teacher)
        episodes = run_episodes(session.spec, actor, seeds, work, keep_visited=_VISITED_FOR_AGREEMENT)
        facts["student"] = _facts(episodes)
        facts["agreement"] = agreement_in(episodes, actor, session.teacher, student)
    return facts


def _facts(episodes: Episodes) -> dict[str, Any]:
    return {"returns": episodes.returns.tolist(), "success": episodes.success_rate}


def build_result(session: Session, distilled: Distilled, facts: dict[str, Any], file_bytes: int) -> dict[str, Any]:
    """The document of result.json (docs/result.md, tests/schema/result.schema.json)."""
    config, info = session.config, session.teacher.info
    teacher, student, random = (np.asarray(facts[name]["returns"]) for name in ("teacher", "student", "random"))
    held = retention(teacher, student, random, config.seed)
    size = distilled.student.footprint
    select, report = session.select_seeds, session.report_seeds
    result: dict[str, Any] = {
        "format": 1,
        "policykd": policykd.__version__,
        "device": config.device,
        "backend": config.env.backend,
        "deterministic": config.evaluate.deterministic,
        "env": session.spec.id,
        "teacher": {
            "source": info.source,
            "sha256": info.sha256,
            "algo": info.algo,
            "params": info.footprint.params or None,  # a function's parameters cannot be counted
            "constants": info.footprint.constants,
            "macs": info.footprint.macs if info.footprint.params else None,
            "return": return_summary(teacher),
        },
        "student": {
            "file": "student.safetensors",
            "params": size.params,
            "constants": size.constants,
            "macs": size.macs,
            "bytes": file_bytes,
            "return": return_summary(student),
        },
        "random": {"return": return_summary(random)},
        "retention": {"value": held.value, "ci95": [held.low, held.high]},
        "compression": info.footprint.params / size.params if info.footprint.params else None,
        "agreement": facts["agreement"],
        "worst_decile": {"teacher": worst_decile(teacher), "student": worst_decile(student)},
        "success": facts["student"]["success"],
        "episodes": len(report),
        "seeds": {"train": config.seed, "select": [select[0], select[-1]], "report": [report[0], report[-1]]},
        "timesteps": distilled.timesteps,
        "seconds": _seconds(session.work.seconds),
        "notes": notes_of(config, session.teacher),
    }
    if config.gate.keep is not None:
        result["gate"] = gate(held, config.gate.keep, config.gate.margin)
    return result


def gate(held: Retention, keep: float, margin: float) -> dict[str, Any]:
    """Non-inferior to `keep` with `margin`: the interval's lower end is at least keep - margin."""
    return {"keep": keep, "margin": margin, "lower": held.low, "attempts": 1, "passed": held.low >= keep - margin}


def frontier(
    session: Session, distilled: Distilled, result: dict[str, Any], family_specs: tuple[Any, ...]
) -> dict[str, Any]:
    """frontier.json of a family: every member at its best judged round, on the selection seeds."""
    baseline = session.baseline
    teacher, random = (float(np.mean(baseline[f"{name}_returns"])) for name in ("teacher", "random"))
    n_inputs, n_means = len(distilled.student.normaliser.mean), session.teacher.distribution.n_means
    keep, margin = session.config.gate.keep, session.config.gate.margin
    members = []
    for index, spec in enumerate(family_specs):
        best = distilled.selection.best_of(index)
        held = (distilled.selection.returns[best.round][index] - random) / (teacher - random)
        size = spec.footprint(n_inputs, n_means)
        chosen = index == distilled.member
        members.append(
            {
                "width": spec.width,
                "depth": spec.depth,
                "seed": spec.seed,
                "params": size.params,
                "constants": size.constants,
                "macs": size.macs,
                "retention": held,
                "agreement": result["agreement"] if chosen else None,
                "latency_us": None,
                "episodes": len(session.select_seeds),
                "status": _status(chosen, keep is None or held >= keep - margin),
            }
        )
    return {"format": 1, "gate": result.get("gate"), "members": members}


def _status(chosen: bool, held: bool) -> str:
    return "chosen" if chosen else ("passed" if held else "failed")


def _seconds(spent: dict[str, float]) -> dict[str, float]:
    stages = {
        name: round(spent.get(name, 0.0), 3) for name in ("baseline", "collect", "label", "update", "select", "report")
    }
    return {**stages, "total": round(sum(spent.values()), 3)}
