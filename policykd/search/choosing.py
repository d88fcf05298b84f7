"""Which candidate is the smallest that will pass, on as few selection episodes as that takes; then its confirmation.

Pure decisions over two functions that play episodes, so that the rate of false claims can be simulated with the very
code that shrinks (tests/unit/search/test_honesty.py). Selection episodes only choose: what is claimed is shown on fresh
seeds (`policykd.evaluation.confirm`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from policykd.evaluation.confirm import Attempt, Demand
from policykd.evaluation.gate import Paired, evidence

Verdict = Literal["passing", "open", "failing"]
LADDER = (8, 16, 32, 64, 96)
"""Selection episodes of one candidate, step by step: hopeless ones end at the first, those at the border last."""
LEAST = 64
"""Selection episodes before a candidate can pass: fewer cannot show that it hardly ever fails."""
_OUT = 2.0  # standard errors below the threshold: not worth another episode

K = TypeVar("K", bound=Hashable)
Judge = Callable[[K, int], Paired]
"""The first n selection episodes of a candidate."""
Confirm = Callable[[K, int, Paired], Attempt]
"""Attempt number k to confirm a candidate, whose selection episodes are given."""


def differences(paired: Paired, threshold: float) -> tuple[float, float]:
    """Mean of D (policykd.evaluation.gate) in units of the teacher's gain over random, and its standard error; with a
    few equal episodes the error is not zero: one more, of the size of the gain, is thought to be lost. Where these
    episodes do not even show that the teacher gains, they say nothing: (-1, 1) is neither promising nor failing."""
    if paired.gap <= 0:
        return -1.0, 1.0
    d = (paired.student - threshold * paired.teacher - (1 - threshold) * paired.random) / paired.gap
    n = len(d)
    return float(d.mean()), float(np.sqrt(d.var() / n + 1.0 / n**2) if n > 1 else 1.0)


def verdict(paired: Paired, demand: Demand) -> Verdict:
    """passing: were the next episodes like these, the gate would be passed within its limit. failing: clearly below."""
    mean, error = differences(paired, demand.threshold)
    if mean + _OUT * error < 0:
        return "failing"
    if len(paired) < LEAST:
        return "open"
    needed = evidence(paired, demand.threshold).needed(demand.error(0))
    return "passing" if needed <= demand.most else "open"


def settled(paired: Paired, demand: Demand, ladder: Sequence[int] = LADDER) -> Verdict:
    """As `verdict`; who is still open at the end of the ladder fails."""
    found = verdict(paired, demand)
    return "failing" if found == "open" and len(paired) >= ladder[-1] else found


@dataclass(frozen=True)
class Settled(Generic[K]):
    """The first candidate that passes on selection episodes (None: none does), and every verdict on the way."""

    passing: K | None
    verdicts: dict[K, Verdict]


def settle(candidates: Iterable[K], judge: Judge[K], demand: Demand, ladder: Sequence[int] = LADDER) -> Settled[K]:
    """Goes up from the smallest candidate; each gets episodes until it is clear, and the first that passes ends it."""
    verdicts: dict[K, Verdict] = {}
    for candidate in candidates:
        verdicts[candidate] = climbed(candidate, judge, demand, ladder)
        if verdicts[candidate] == "passing":
            return Settled(candidate, verdicts)
    return Settled(None, verdicts)


def climbed(candidate: K, judge: Judge[K], demand: Demand, ladder: Sequence[int] = LADDER) -> Verdict:
    """The verdict on one candidate; who is still open at the end of the ladder fails."""
    for n in ladder:
        found = verdict(judge(candidate, n), demand)
        if found != "open":
            return found
    return "failing"


Size = Callable[[K], int]
"""What a candidate weighs."""


@dataclass(frozen=True)
class Confirmed(Generic[K]):
    """Every attempt in order; the last one passed, or nothing did."""

    attempts: list[tuple[K, Attempt]]

    @property
    def chosen(self) -> K | None:
        """The candidate that passed."""
        return self.attempts[-1][0] if self.attempts and self.attempts[-1][1].passed else None


def confirmed(
    candidates: Iterable[K], judge: Judge[K], confirm: Confirm[K], demand: Demand, size: Size[K] | None = None
) -> Confirmed[K]:
    """Confirms the smallest candidate that passes on selection episodes; where that fails, the next larger one on fresh
    seeds again, in at most `demand.attempts` attempts. By `size`, others as large as one that failed come last: what it
    lacked they will lack as well, and attempts are few."""
    attempts: list[tuple[K, Attempt]] = []
    left = list(candidates)
    while len(attempts) < demand.attempts:
        settled = settle(left, judge, demand)
        if settled.passing is None:
            break
        before = judge(settled.passing, 1)  # all that were played already
        attempts.append((settled.passing, confirm(settled.passing, len(attempts), before)))
        if attempts[-1][1].passed:
            break
        left = left[left.index(settled.passing) + 1 :]
        if size is not None:
            failed = size(settled.passing)
            left.sort(key=lambda candidate: size(candidate) <= failed)  # in their order otherwise
    return Confirmed(attempts)
