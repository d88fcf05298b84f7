"""frontier.json: every member of the search, how it stands, and what became of it."""

from __future__ import annotations

from typing import Any

from policykd.evaluation.confirm import Attempt
from policykd.evaluation.gate import Paired, interval
from policykd.search.choosing import settled
from policykd.search.grid import fixed_bytes
from policykd.search.shrink import Outcome
from policykd.search.standing import Candidate, Standing
from policykd.students.spec import MemberSpec, conv_of, kind_of


def frontier_document(outcome: Outcome, result: dict[str, Any]) -> dict[str, Any]:
    """Members smallest first (docs/result.md); those that were tried on fresh seeds with what these said."""
    session = outcome.standing.session
    student = session.config.student
    fixed = fixed_bytes(session.teacher, kind_of(student), student.keys, conv_of(student))
    members = [_member(outcome, spec, fixed) for spec in outcome.standing.members]
    teacher = {key: result["teacher"][key] for key in ("params", "return")}
    return {"format": 1, "gate": result["gate"], "teacher": teacher, "members": members}


def _member(outcome: Outcome, spec: MemberSpec, fixed: int) -> dict[str, Any]:
    standing = outcome.standing
    tried = [c for c in standing.of(spec) if c.key in outcome.attempts]
    best = tried[-1] if tried else standing.best_of(spec)
    assert best is not None
    attempt = outcome.attempts.get(best.key)
    paired = standing.judge(best.key, 1) if attempt is None else attempt.paired
    size = best.student.footprint
    return {
        "width": spec.width,
        "depth": spec.depth,
        **({"channels": spec.channels} if spec.conv else {}),
        "seed": spec.seed,
        "params": size.params,
        "constants": size.constants,
        "macs": size.macs,
        "bytes": 4 * size.params + fixed,
        "retention": _held(paired),
        "interval": _interval(paired, attempt),
        "seeds": "select" if attempt is None else "report",
        "agreement": outcome.proof.agreement if best is outcome.candidate else best.measured.get("agreement"),
        "train_kl": best.measured.get("train_kl"),
        "validation_kl": best.measured.get("validation_kl"),
        "latency_us": outcome.latencies.of(best),
        "episodes": len(paired),
        "curve": _curve(standing, spec),
        "status": _status(standing, spec, best, attempt),
    }


def _held(paired: Paired) -> float | None:
    """None where so few episodes do not tell the teacher from the random policy."""
    return paired.retention if paired.gap > 0 else None


def _interval(paired: Paired, attempt: Attempt | None) -> list[float] | None:
    """The gate's own of a member that was tried on fresh seeds."""
    if attempt is not None:
        return [attempt.lower, attempt.upper]
    return list(interval(paired)) if paired.gap > 0 else None


def _curve(standing: Standing, spec: MemberSpec) -> list[list[float]]:
    """[timesteps, retention] of every candidate of the member that was judged."""
    pairs = [(c.timesteps, _held(standing.judge(c.key, 1))) for c in standing.of(spec)]
    return [[timesteps, held] for timesteps, held in pairs if held is not None]


def _status(standing: Standing, spec: MemberSpec, best: Candidate, attempt: Attempt | None) -> str:
    if attempt is not None:
        return "chosen" if attempt.passed else "failed"
    found = settled(standing.judge(best.key, 1), standing.demand)
    return {"passing": "passed", "failing": "failed", "open": "dropped"}[found]
