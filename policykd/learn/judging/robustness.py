"""Teacher and student under each disturbance of the configuration: `robust` of result.json (docs/robust.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policykd.evaluation.episodes import Episodes
from policykd.evaluation.parallel import Job, play
from policykd.evaluation.smoothness import mean_change
from policykd.evaluation.stats import refuse_random_teacher, retention, return_summary
from policykd.learn.judging.proof import Proved
from policykd.learn.judging.trial import player
from policykd.learn.setup.session import Session
from policykd.spine.errors import InputError
from policykd.spine.types import Policy

CLEAN, TOGETHER = "clean", "together"


def robustness(session: Session, proved: Proved) -> dict[str, Any]:
    """{"robust": ...} of the judged student, on the first report seeds; empty unless the configuration asks for it.

    Undisturbed, under each disturbance alone, and under all of them where there are several: teacher, student and
    random policy on the same seeds, so under the same disturbances.
    """
    robust, seeds = session.config.robust, proved.proof.seeds
    if not robust.evaluate:
        return {}
    seeds = seeds[: robust.episodes or len(seeds)]
    conditions: dict[str, tuple[str, ...]] = {CLEAN: (), **{kind: (kind,) for kind in robust.on}}
    if len(robust.on) > 1:
        conditions[TOGETHER] = robust.on
    student = session.acting(proved.student)
    found = {}
    with session.work.stage("robust", total=3 * len(seeds) * len(conditions)):
        for name, kinds in conditions.items():
            found[name] = _condition(session, student, seeds, kinds)
            _tell(session, name, found[name], proved.timesteps)
    return {"robust": {"episodes": len(seeds), "seeds": [seeds[0], seeds[-1]], "conditions": found}}


def _condition(session: Session, student: Policy, seeds: range, kinds: Sequence[str]) -> dict[str, Any]:
    policies = {"teacher": session.teacher, "student": student, "random": None}
    jobs = [Job(player(session, policy, 0), seeds) for policy in policies.values()]
    played = dict(zip(policies, play(session.disturbed(kinds), jobs, session.work), strict=True))
    settings = session.config.robust.model_dump(mode="json")
    return {
        "settings": {kind: settings[kind] for kind in kinds},
        **{who: _side(episodes) for who, episodes in played.items()},
        "retention": _retention(played, session.config.seed),
    }


def _side(episodes: Episodes) -> dict[str, Any]:
    moved = mean_change(episodes.change, episodes.lengths)
    return {"return": return_summary(episodes.returns), "action_change": moved}


def _retention(played: dict[str, Episodes], seed: int) -> dict[str, Any] | None:
    """None where the teacher itself is no better than random under the disturbance."""
    teacher, student, random = (played[who].returns for who in ("teacher", "student", "random"))
    try:
        refuse_random_teacher(teacher, random)
        held = retention(teacher, student, random, seed)
    except InputError:
        return None
    return {"value": held.value, "ci95": [held.low, held.high], "interval": "bootstrap"}


def _tell(session: Session, name: str, condition: dict[str, Any], timesteps: int) -> None:
    values = {f"robust/{name}/return_{who}": condition[who]["return"]["mean"] for who in ("teacher", "student")}
    if condition["retention"] is not None:
        values[f"robust/{name}/retention"] = condition["retention"]["value"]
    session.work.tracker.scalars(values, timesteps)
