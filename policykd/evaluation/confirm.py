"""Confirming a student on fresh episodes: as many as the verdict needs, in attempts among which the error is split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policykd.evaluation.gate import ERROR, NOTHING, Evidence, Paired, evidence, interval

Play = Callable[[range], Paired]
"""Returns of teacher, student and random policy on these seeds, one episode each."""


@dataclass(frozen=True)
class Demand:
    """What is asked: `keep` - `margin` of the teacher's return, shown on `least` to `most` episodes an attempt."""

    keep: float
    margin: float
    least: int
    most: int
    attempts: int = 1

    @property
    def threshold(self) -> float:
        """What the lower end of the interval must reach."""
        return self.keep - self.margin

    def error(self, attempt: int) -> float:
        """One-sided error of attempt 0, 1, ...: halves of what is left, so that all attempts together have `ERROR`."""
        return float(ERROR / 2 ** min(attempt + 1, self.attempts - 1))


@dataclass(frozen=True)
class Attempt:
    """One candidate on fresh seeds. `lower`, `upper`: retention's interval at `error` on each side."""

    seeds: range
    paired: Paired
    error: float
    lower: float
    upper: float
    passed: bool


def confirm(play: Play, first_seed: int, demand: Demand, attempt: int = 0, before: Paired = NOTHING) -> Attempt:
    """Plays episodes until the demand is shown to be held, will not be, or `most` are played.

    A hopeless student is given up from half of the least on. Stopping early costs no error: the evidence may be looked
    at at any time. Attempt k takes its seeds from `first_seed` + k * `most` on, which no other attempt shares.
    """
    error = demand.error(attempt)
    begin = first_seed + attempt * demand.most
    end = begin + max(demand.least // 2, 1)
    paired = play(range(begin, end))
    while True:
        found = evidence(paired, demand.threshold, before)
        left = begin + demand.most - end
        enough = len(paired) >= demand.least
        if left <= 0 or (enough and found.holds(error)):
            break
        if paired.gap > 0 and _hopeless(paired, found, demand, error, len(before)):
            break  # where the teacher has gained nothing yet, nothing is known
        more = range(end, end + min(left, max(demand.least // 4, 1) if enough else begin + demand.least - end))
        paired, end = paired.joined(play(more)), more.stop
    lower, upper = interval(paired, error, before)
    return Attempt(range(begin, end), paired, error, lower, upper, enough and found.holds(error))


def _hopeless(paired: Paired, found: Evidence, demand: Demand, error: float, before: int) -> bool:
    if len(paired) < demand.least:
        return _below(paired, found, demand)
    return found.needed(error) > 2 * demand.most + before


def _below(paired: Paired, found: Evidence, demand: Demand) -> bool:
    """Whether half of the least episodes lie below the demand, and nothing before them speaks for the student."""
    lost = paired.student - demand.threshold * paired.teacher - (1 - demand.threshold) * paired.random
    return float(lost.mean()) < 0 and found.growth <= 0
