"""Why nothing smaller passes: what the losses, the agreement and the returns of the members near the border say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from policykd.search.choosing import differences, verdict
from policykd.search.shrink import Outcome
from policykd.search.standing import Candidate

_OVERFIT = 2.0  # validation KL over training KL from which on more data is worth more than more parameters
_AGREES = 0.95  # of the states: then it is not the single actions that are wrong
_BETTER = 3.0  # times better fitted by another member: then it is not the data,
_HIGH = 0.5  # and from so many nats on nobody fits


@dataclass(frozen=True)
class Diagnosis:
    """`limit`: capacity, data or horizon; None where there is nothing to explain. `lines`: for people."""

    limit: str | None
    lines: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """`diagnosis` of result.json."""
        return {"limit": self.limit, "lines": list(self.lines)}


def diagnose(outcome: Outcome) -> Diagnosis:
    """Of the largest member below the one that passed (or of the best one, where none did)."""
    standing = outcome.standing
    passed = outcome.proof.attempt is not None and outcome.proof.attempt.passed
    members = [c for spec in standing.members if (c := standing.best_of(spec)) is not None]
    below = [c for c in members if c.params < outcome.candidate.params] if passed else members
    tried = {key for key, attempt in outcome.attempts.items() if not attempt.passed}
    failing = [c for c in below if c.key in tried or verdict(standing.judge(c.key, 1), standing.demand) != "passing"]
    if not failing:
        return Diagnosis(None, ())
    worst = max(failing, key=lambda c: differences(standing.judge(c.key, 1), standing.demand.threshold)[0])
    limit, why, remedy = _cause(worst, members)
    where = f"the nearest that fails has {worst.params:,} parameters"
    return Diagnosis(limit, (f"{where}: {why}", remedy))


def _cause(candidate: Candidate, members: list[Candidate]) -> tuple[str, str, str]:
    train = candidate.measured.get("train_kl", float("nan"))
    validation = candidate.measured.get("validation_kl", float("nan"))
    agreement = candidate.measured.get("agreement", float("nan"))
    fitted = min((c.measured["train_kl"] for c in members if "train_kl" in c.measured), default=float("nan"))
    poor = train > _HIGH or fitted * _BETTER < train
    if not poor and np.isfinite(validation) and validation > _OVERFIT * train:
        why = f"data-limited: its KL is {validation:.3g} on states it had not learned from, {train:.3g} on the others"
        return "data", why, "more data will help: raise rollout.timesteps or rollout.rounds"
    if not poor and agreement >= _AGREES:
        percent = f"{100 * agreement:.1f} %"
        why = f"horizon-limited: it acts as its teacher in {percent} of its states, but few wrong actions cost much"
        return "horizon", why, "more rounds on its own states may help: raise rollout.rounds, search.seeds"
    why = f"capacity-limited: its KL stays at {train:.3g}" if np.isfinite(train) else "capacity-limited"
    if fitted * _BETTER < train:
        why += f", where the best fitted member has {fitted:.3g}"
    remedy = "a smaller policy needs a better fit: raise search.seeds or update.n_updates, or try other widths"
    return "capacity", why, remedy
