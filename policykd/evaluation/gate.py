"""The gate: a non-inferiority test on paired episodes that may be looked at at any time.

A student holds `threshold` (= keep - margin) of the teacher when the mean of

    D = student - threshold * teacher - (1 - threshold) * random        (returns of one seed; Fieller's linear form)

is above zero. The evidence against "the mean of D is at most zero" is the capital of a gambler who bets on D > 0
(Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", arXiv:2010.09686): with
x = D - lowest >= 0 and m = -lowest, capital = product of 1 + fraction/m * (x - m). If the student does not hold the
threshold, capital stays below 1/error for ever with probability 1 - error (Ville's inequality): the test may be looked
at after every episode, and no number of episodes without a failure passes sooner than a student that fails too often
would be unlucky enough. A bootstrap passes: with a hundred episodes it knows nothing of a student that falls once in a
hundred.

Where it differs from the paper: the fraction that is bet is the one that would have been best on the episodes before
(selection episodes first, then those already seen), with half a worst possible episode added (Krichevsky and Trofimov
1981); and `lowest` is not known, but taken from the worst return that any of the three showed, the random policy
included. That is the one assumption: a fall that costs several times more than random play does, and has not been seen
on any episode, is not covered (benchmarks/honesty.py measures what then happens).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policykd.spine.errors import InputError
from policykd.spine.types import Array

ERROR = 0.025  # one-sided: the lower end of a 95 % interval
_FRACTIONS = np.concatenate([[0.0], np.geomspace(1e-4, 0.9995, 200)])  # of the capital that one worst episode may cost
_HALVINGS = 24  # of a range of about one: to 1e-7
_UNSEEN = 0.25  # of a worst possible episode, in a forecast


@dataclass(frozen=True)
class Paired:
    """Returns [E] of teacher, student and random policy; episode i has one seed for all three."""

    teacher: Array
    student: Array
    random: Array

    def __len__(self) -> int:
        return len(self.student)

    def joined(self, more: Paired) -> Paired:
        """These episodes, then those."""
        pairs = ((self.teacher, more.teacher), (self.student, more.student), (self.random, more.random))
        return Paired(*(np.concatenate(pair) for pair in pairs))

    def first(self, n: int) -> Paired:
        """The first n episodes."""
        return Paired(self.teacher[:n], self.student[:n], self.random[:n])

    def negated(self) -> Paired:
        """The same with every return's sign turned: its lowest is this one's highest."""
        return Paired(-self.teacher, -self.student, -self.random)

    @property
    def retention(self) -> float:
        """(student - random) / (teacher - random); NaN where teacher and random are equal."""
        return float(self.student.mean() - self.random.mean()) / self.gap if self.gap else float("nan")

    @property
    def gap(self) -> float:
        """What the teacher gains over the random policy here; not above zero in a few episodes of a noisy one."""
        return float(self.teacher.mean() - self.random.mean())


NOTHING = Paired(*(np.zeros(0) for _ in range(3)))


@dataclass(frozen=True)
class Evidence:
    """`log_capital` [E] after each episode; `growth`, what another episode would add on average if they went on so, and
    one in `4 E` were the worst possible: that no failure was seen in a few episodes says little."""

    log_capital: Array
    growth: float

    def holds(self, error: float) -> bool:
        """Whether "the student does not hold the threshold" is refuted at this one-sided error."""
        return bool(len(self.log_capital)) and bool(self.log_capital[-1] >= np.log(1 / error))

    def needed(self, error: float) -> float:
        """Episodes from the first bet to the verdict if all went on like this; infinite where it would never come."""
        return float((np.log(1 / error) + 1.0) / self.growth) if self.growth > 0 else float("inf")


def evidence(paired: Paired, threshold: float, before: Paired = NOTHING) -> Evidence:
    """That the student retains more than `threshold`. `before`: other episodes of it, which only tell how to bet."""
    both = before.joined(paired)
    lowest = float(min(both.student.min(), both.random.min(), both.teacher.min()))
    least = lowest - float((threshold * both.teacher).max()) - float(((1 - threshold) * both.random).max())
    x = both.student - threshold * both.teacher - (1 - threshold) * both.random - least
    m = -least
    if m <= 0:  # even the worst episode would hold it
        return Evidence(np.full(len(paired), np.inf), np.inf)
    gains = np.log1p(_FRACTIONS / m * (x[:, None] - m))  # [E, fractions]
    worth = np.cumsum(gains, 0) + 0.5 * np.log1p(-_FRACTIONS)  # of each fraction after each episode
    known = np.vstack([0.5 * np.log1p(-_FRACTIONS), worth])[len(before) :]
    bet = known[:-1].argmax(1)
    won = gains[np.arange(len(before), len(both)), bet]
    expected = gains.sum(0) + _UNSEEN * np.log1p(-_FRACTIONS)
    return Evidence(np.cumsum(won), float(expected.max()) / max(len(both), 1))


def interval(paired: Paired, error: float = ERROR, before: Paired = NOTHING) -> tuple[float, float]:
    """Retention's interval: the thresholds that the evidence refutes on neither side, each side at `error`. InputError
    where the teacher's mean return is not above the random policy's."""
    if paired.gap <= 0:
        raise InputError(
            f"{len(paired)} episodes are too few to tell the teacher from a random policy; take more "
            "(gate.least_episodes), or check the teacher"
        )
    low = _lower(paired, error, before)
    high = _lower_of_negated(paired.negated(), error, before.negated(), paired.retention)
    return low, max(high, low)


def _lower(paired: Paired, error: float, before: Paired) -> float:
    """The largest threshold that is still refuted; where none is, the retention of nothing but worst episodes."""
    worst = min(float(returns.min()) for returns in (paired.student, paired.random, paired.teacher))
    below, above = (worst - float(paired.random.mean())) / paired.gap, paired.retention
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if evidence(paired, middle, before).holds(error):
            below = middle
        else:
            above = middle
    return below


def _lower_of_negated(negated: Paired, error: float, before: Paired, value: float) -> float:
    """The upper end: the smallest threshold that is refuted from above, at most the retention of the best episode."""
    best = -min(float(returns.min()) for returns in (negated.student, negated.random, negated.teacher))
    above = max((best + float(negated.random.mean())) / -negated.gap, value)
    ceiling, below = above, value
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if evidence(negated, middle, before).holds(error):
            above = middle
        else:
            below = middle
    return min(above, ceiling)


def in_words(keep: float, margin: float) -> str:
    """What is claimed: non-inferior to 99 %, margin 2 points."""
    return f"non-inferior to {100 * keep:g} %, margin {100 * margin:g} points"
