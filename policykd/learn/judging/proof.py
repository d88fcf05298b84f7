"""The proof: teacher, student and random policy on the report seeds, which chose nothing; then result.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import policykd
from policykd.evaluation.analysis import analysis
from policykd.evaluation.confirm import Attempt, Demand, confirm
from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.evaluation.gate import NOTHING, Paired, in_words, interval
from policykd.evaluation.stats import retention, return_summary, worst_decile
from policykd.learn.judging.notes import notes_of
from policykd.learn.judging.trial import Trial
from policykd.learn.methods.distill import Distilled
from policykd.learn.setup.session import Session
from policykd.spine.config.judging import GateConfig
from policykd.students.student import Student
from policykd.teachers.base import Teacher
from policykd.teachers.ensemble import EnsembleTeacher

_ANALYSED, _VISITED_FOR_ANALYSIS = 8, 20_000


@dataclass(frozen=True)
class Proof:
    """Report episodes of all three on `seeds`, which chose nothing. `attempt` is the gate's, None where nothing was
    demanded; `number` says which one it was, counted from 0, `before` which episodes told the gate how to bet."""

    seeds: range
    paired: Paired
    agreement: float
    success: float | None
    attempt: Attempt | None = None
    number: int = 0
    before: Paired = NOTHING
    action_change: tuple[float | None, float | None] = (None, None)  # of teacher and student


@dataclass(frozen=True)
class Proved:
    """A student, its report episodes, and the timesteps of the whole run."""

    student: Student
    proof: Proof
    timesteps: int


def prove(session: Session, student: Student, *, number: int = 0, before: Paired = NOTHING) -> Proof:
    """Plays the report episodes: as many as are configured, or, where retention is demanded, as many as the gate needs.

    `before`: selection episodes of this student, which tell the gate how to bet.
    """
    demand = demand_of(session)
    if demand is None:
        seeds = session.report_seeds
        trial = Trial(session, student, "report", seeds.start)
        with session.work.stage("report", total=3 * len(seeds)):
            paired = trial.play(seeds)
        moved = trial.reference.action_change, trial.action_change
        return Proof(seeds, paired, trial.agreement, trial.success, action_change=moved)
    first = session.config.evaluate.first_seed
    trial = Trial(session, student, f"report-{number}", first + number * demand.most)
    with session.work.stage("report", total=3 * demand.most):
        attempt = confirm(trial.play, first, demand, number, before)
    moved = trial.reference.action_change, trial.action_change
    return Proof(attempt.seeds, attempt.paired, trial.agreement, trial.success, attempt, number, before, moved)


def analysed(session: Session, student: Student) -> dict[str, Any]:
    """analysis.json, over the states of a few episodes of the student on selection seeds."""
    seeds = session.select_seeds[:_ANALYSED]
    acting = session.acting(student)
    actor = policy_actor(acting, session.config.evaluate.deterministic, session.config.seed)
    episodes = run_episodes(session.spec, actor, seeds, session.work, keep_visited=_VISITED_FOR_ANALYSIS)
    return analysis(session.teacher, acting, episodes.visited, episodes.masks, episodes=len(seeds))


def demand_of(session: Session) -> Demand | None:
    """What the gate of the configuration asks of a student; None where it asks nothing."""
    gate = session.config.gate
    if gate.keep is None:
        return None
    assert isinstance(gate.most_episodes, int)  # settled by `policykd.learn.setup.defaults`
    return Demand(gate.keep, gate.margin, gate.least_episodes, gate.most_episodes, session.attempts)


def build_result(session: Session, proved: Proved, file_bytes: int) -> dict[str, Any]:
    """The document of result.json (docs/result.md, tests/schema/result.schema.json)."""
    config, info, proof = session.config, session.teacher.info, proved.proof
    teacher, student, random = proof.paired.teacher, proof.paired.student, proof.paired.random
    size = proved.student.footprint
    select, report = session.select_seeds, proof.seeds
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
            "action_change": proof.action_change[0],
            **_ensemble(session.teacher),
        },
        "student": {
            "file": "student.safetensors",
            "params": size.params,
            "constants": size.constants,
            "macs": size.macs,
            "bytes": file_bytes,
            "return": return_summary(student),
            "action_change": proof.action_change[1],
        },
        "random": {"return": return_summary(random)},
        "retention": _retention(proof, config.seed),
        "compression": info.footprint.params / size.params if info.footprint.params else None,
        "agreement": proof.agreement,
        "worst_decile": {"teacher": worst_decile(teacher), "student": worst_decile(student)},
        "success": proof.success,
        "episodes": len(report),
        "seeds": {"train": config.seed, "select": [select[0], select[-1]], "report": [report[0], report[-1]]},
        "timesteps": proved.timesteps,
        "seconds": _seconds(session.work.seconds),
        "notes": notes_of(config, session.teacher),
    }
    if proof.attempt is not None:
        result["gate"] = gate_document(proof, config.gate)
    return result


def _ensemble(teacher: Teacher) -> dict[str, Any]:
    """Of several teachers: how they are combined, and each one with its weight."""
    if not isinstance(teacher, EnsembleTeacher):
        return {}
    panel = teacher.network
    each = [
        {
            "source": one.info.source,
            "sha256": one.info.sha256,
            "algo": one.info.algo,
            "params": one.info.footprint.params or None,
            "weight": weight,
        }
        for one, weight in zip(panel.teachers, panel.weights, strict=True)
    ]
    return {"ensemble": {"how": panel.how, "teachers": each}}


def _retention(proof: Proof, seed: int) -> dict[str, Any]:
    """Bootstrap where nothing is claimed. A claim needs an interval that stays wide where no failure was seen."""
    if proof.attempt is None:
        held = retention(proof.paired.teacher, proof.paired.student, proof.paired.random, seed)
        return {"value": held.value, "ci95": [held.low, held.high], "interval": "bootstrap"}
    low, high = interval(proof.paired, before=proof.before)
    return {"value": proof.paired.retention, "ci95": [low, high], "interval": "betting"}


def gate_document(proof: Proof, gate: GateConfig) -> dict[str, Any]:
    """`gate` of result.json: `lower` is the end of the interval at this attempt's share of the error."""
    attempt = proof.attempt
    assert attempt is not None and gate.keep is not None
    return {
        "keep": gate.keep,
        "margin": gate.margin,
        "claim": in_words(gate.keep, gate.margin),
        "lower": attempt.lower,
        "error": attempt.error,
        "attempts": proof.number + 1,
        "passed": attempt.passed,
    }


def frontier(
    session: Session, distilled: Distilled, result: dict[str, Any], family_specs: tuple[Any, ...]
) -> dict[str, Any]:
    """frontier.json of a family: every member at its best judged round, on the selection seeds."""
    baseline = session.baseline
    teacher, random = (float(np.mean(baseline[f"{name}_returns"])) for name in ("teacher", "random"))
    packing, n_means = session.view.packing, session.teacher.distribution.n_means
    keep, margin = session.config.gate.keep, session.config.gate.margin
    members = []
    for index, spec in enumerate(family_specs):
        best = distilled.selection.best_of(index)
        held = (distilled.selection.returns[best.round][index] - random) / (teacher - random)
        size = spec.footprint(packing, n_means)
        chosen = index == distilled.member
        members.append(
            {
                **({"leaves": spec.leaves} if spec.leaves else {"width": spec.width, "depth": spec.depth}),
                "seed": spec.seed,
                **({"channels": spec.channels} if spec.channels else {}),
                **{name: own for name in ("temperature", "alpha") if (own := getattr(spec, name)) is not None},
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
    stages |= {name: round(spent[name], 3) for name in ("robust", "finetune") if name in spent}
    return {**stages, "total": round(sum(spent.values()), 3)}
