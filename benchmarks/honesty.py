"""The honesty of `policykd shrink`, simulated with the code that shrinks: how often it claims what is not true."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.machine import table
from policykd.evaluation.confirm import Attempt, Demand, confirm
from policykd.evaluation.gate import Paired
from policykd.search.choosing import confirmed, settle
from policykd.spine.seeding import SeedKey

DEMAND = Demand(keep=0.99, margin=0.02, least=200, most=1000, attempts=3)
MEMBERS = 20
BELOW = 0.001  # how far the members' true retention lies under keep - margin
FALSE_AT_MOST = 0.05
_SELECT = 1_000_000
Loss = Callable[[np.random.Generator, int, float], np.ndarray]
"""What a student of this true retention loses against its teacher in each of n episodes, in units of the gain."""


def gaussian(sd: float) -> Loss:
    """Every episode loses a little, more or less."""
    return lambda rng, n, true: (1 - true) + sd * rng.standard_normal(n)


def failures(rng: np.random.Generator, n: int, true: float) -> np.ndarray:
    """As good as the teacher but for a fall now and then, which loses all."""
    return (rng.random(n) < 1 - true).astype(float)


def deep_failures(rng: np.random.Generator, n: int, true: float) -> np.ndarray:
    """A fall that loses three gains: far below random play, which the gate's assumption excludes until one is seen."""
    return 3.0 * (rng.random(n) < (1 - true) / 3)


LOSSES: dict[str, Loss] = {
    "Gaussian, sd 0.05": gaussian(0.05),
    "Gaussian, sd 0.1": gaussian(0.1),
    "Gaussian, sd 0.2": gaussian(0.2),
    "rare total failures": failures,
}
OUTSIDE = ("falls that lose three gains (not covered)", deep_failures)


@dataclass
class World:
    """Twenty members of one true retention, whose episodes are drawn as they are played; teacher 1, random policy 0,
    both with noise of their own."""

    loss: Loss
    true: float
    rng: np.random.Generator
    noise: float = 0.1

    def __post_init__(self) -> None:
        self._selected: dict[int, Paired] = {}

    def judge(self, member: int, n: int) -> Paired:
        """The first n selection episodes of a member, or more where more were played."""
        known = self._selected.get(member)
        if known is None or len(known) < n:
            more = self.play(range(_SELECT + (0 if known is None else len(known)), _SELECT + n))
            self._selected[member] = more if known is None else known.joined(more)
        return self._selected[member]

    def play(self, seeds: range) -> Paired:
        """Fresh episodes."""
        n = len(seeds)
        teacher = 1 + self.noise * self.rng.standard_normal(n)
        random = self.noise * self.rng.standard_normal(n)
        lost = self.loss(self.rng, n, self.true)
        return Paired(teacher, teacher - lost * (teacher - random), random)


def claims(world: World, demand: Demand = DEMAND) -> bool:
    """Whether a search over the members ends in a claim: two generations are settled, then one is confirmed."""
    members = list(range(MEMBERS))
    for generation in (members[: MEMBERS // 2], members[MEMBERS // 2 :]):
        settle(generation, world.judge, demand)

    def attempt(member: int, number: int, before: Paired) -> Attempt:
        del member
        return confirm(world.play, 10_000, demand, number, before)

    return confirmed(members, world.judge, attempt, demand).chosen is not None


def claims_naively(world: World, demand: Demand = DEMAND) -> bool:
    """The control: a percentile bootstrap, looked at every 20 episodes, on every member in turn."""
    for _ in range(MEMBERS):
        paired = world.play(range(20))
        while len(paired) <= demand.least:
            if _bootstrap_low(paired, world.rng) >= demand.threshold:
                return True
            paired = paired.joined(world.play(range(20)))
    return False


def _bootstrap_low(paired: Paired, rng: np.random.Generator) -> float:
    index = rng.integers(0, len(paired), (400, len(paired)))
    teacher, student, random = (x[index].mean(1) for x in (paired.teacher, paired.student, paired.random))
    return float(np.quantile((student - random) / (teacher - random), 0.025))


def rate(search: Callable[[World], bool], loss: Loss, true: float, repeats: int) -> float:
    """How often `search` claims."""
    return float(np.mean([search(World(loss, true, SeedKey(i, "random").numpy())) for i in range(repeats)]))


def one_member(world: World) -> bool:
    """Whether a single member passes: the power of the gate."""
    return confirm(world.play, 10_000, DEMAND, 0, world.judge(0, 64)).passed


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether the rate of false claims is small enough for every kind of loss."""
    repeats, rows, good = options.repeats, [], True
    false = DEMAND.threshold - BELOW
    for name, loss in (*LOSSES.items(), OUTSIDE):
        wrong = rate(claims, loss, false, repeats)
        power = [rate(one_member, loss, true, repeats) for true in (1.0, 0.99, 0.98)]
        naive = rate(partial(claims_naively), loss, false, max(repeats // 5, 20))
        good &= wrong <= FALSE_AT_MOST or name == OUTSIDE[0]
        rows.append([name, f"{wrong:.3f}", *(f"{p:.2f}" for p in power), f"{naive:.2f}"])
    head = ("losses", "false claims", "power at 1.00", "at 0.99", "at 0.98", "false claims of a bootstrap with peeking")
    page = PAGE.format(below=BELOW, members=MEMBERS, repeats=repeats, table=table(head, rows), most=FALSE_AT_MOST)
    return page, good


PAGE = """# How often `policykd shrink` claims what is not true

`python -m benchmarks honesty --repeats {repeats} --out docs/benchmarks`: {members} members whose true retention lies
{below} below what is demanded (non-inferior to 99 %, margin 2 points), each search settled and confirmed by the code
that shrinks, with its early stopping, its attempts and its fall-back, {repeats} searches for each kind of loss. The
bound: at most {most} of the searches claim anything. Power: how often a single member of the given true retention is
confirmed in its first attempt (200 to 1,000 episodes). The control: the same twenty members, a percentile bootstrap
looked at every 20 episodes up to 200. The last row breaks the gate's one assumption, that no episode is worse than the
worst of all that were seen (random play among them): a fall there costs three times what random play does.

{table}"""
