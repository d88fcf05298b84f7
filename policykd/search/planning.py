"""What is trained next: nearer to the border, until it is known within a step of the grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from policykd.search.choosing import differences, settled, verdict
from policykd.search.generation import Plan
from policykd.search.grid import Size, above, costs
from policykd.search.standing import Standing
from policykd.spine.config.judging import SearchConfig
from policykd.spine.packing import Packing
from policykd.students.spec import MemberSpec

_ARCHITECTURES = 8  # of a later generation
_MACS = 24_000  # of its members together: an update of them takes a few milliseconds
_HOPELESS = 0.25  # of the teacher's gain below the threshold, and three standard errors: no other seed will do it
_INNER = 5  # of them between the largest that fails and the smallest that passes
_HIGHER = 4  # architectures of a generation that goes up, since nothing passed


@dataclass(frozen=True)
class Known:
    """What the search knows after some generations: the grid, and how its members stand. `observed`: what convolutions
    must know to tell what they cost."""

    specs: Sequence[MemberSpec]
    size: Size
    standing: Standing
    observed: int | Packing = 1

    @property
    def passing(self) -> list[MemberSpec]:
        """Members that pass on selection episodes, smallest first."""
        standing = self.standing
        return [m for m in standing.members if m not in standing.dropped and self._verdict(m) == "passing"]

    @property
    def failing(self) -> list[MemberSpec]:
        """Members that were judged to the end and do not pass, and those that are far below."""
        found = []
        for member in self.standing.members:
            best = self.standing.best_of(member)
            if best is not None and settled(self.standing.judge(best.key, 1), self.standing.demand) == "failing":
                found.append(member)
        return found

    @property
    def tries(self) -> Counter[tuple[int, ...]]:
        """Members that each architecture had."""
        return Counter(m.architecture for m in self.standing.members)

    def hopeless(self, spec: MemberSpec) -> bool:
        """Whether a member of this architecture, or of a larger one as deep, came nowhere near the threshold."""
        return any(spec.within(m) and self._far(m) for m in self.standing.members)

    def _verdict(self, member: MemberSpec) -> str:
        best = self.standing.best_of(member)
        return "open" if best is None else verdict(self.standing.judge(best.key, 1), self.standing.demand)

    def _far(self, member: MemberSpec) -> bool:
        best = self.standing.best_of(member)
        if best is None:
            return False
        mean, error = differences(self.standing.judge(best.key, 1), self.standing.demand.threshold)
        return mean + 3 * error + _HOPELESS < 0


def next_plan(known: Known, last: Plan, search: SearchConfig, rounds: int) -> Plan | None:
    """The next generation; None where the border is known, or as many as may be were trained."""
    if last.number + 1 >= search.generations:
        return None
    passing = known.passing
    if passing:
        members = _below(known, known.size(passing[0]), search.seeds)
        count = search.refine_rounds
    else:
        members = _higher(known, search.seeds)
        count = rounds
    return Plan(last.number + 1, tuple(sorted(members)), last.end, count) if members else None


def _below(known: Known, smallest: int, seeds: int) -> list[MemberSpec]:
    """Between the largest that fails and the smallest that passes, spread evenly; then more seeds of those that failed,
    nearest first, since small students differ by their initial weights."""
    tries = known.tries
    floor = max((known.size(m) for m in known.failing if known.size(m) < smallest), default=0)
    open_ = [s for s in known.specs if known.size(s) < smallest and tries[s.architecture] < seeds]
    inner = above([s for s in open_ if known.size(s) > floor], 0, known.size, _INNER)
    again = [s for s in reversed(open_) if known.size(s) <= floor and not known.hopeless(s)]
    return _within_cost([*reversed(inner), *again][:_ARCHITECTURES], known, seeds)


def _higher(known: Known, seeds: int) -> list[MemberSpec]:
    """Nothing passed: larger ones, up to the largest of the grid; where there are none, more seeds of the largest."""
    tries = known.tries
    largest = max((known.size(m) for m in known.standing.members), default=0)
    larger = above(known.specs, largest, known.size, _HIGHER)
    if larger:
        return larger
    return _within_cost([s for s in reversed(known.specs) if tries[s.architecture] < seeds][:_HIGHER], known, seeds)


def _within_cost(pool: Iterable[MemberSpec], known: Known, seeds: int) -> list[MemberSpec]:
    """One new seed of each architecture, then a second of each, and so on, while their updates stay cheap."""
    pool, tries, chosen, spent = list(pool), known.tries, list[MemberSpec](), 0
    cost = costs(known.observed, 1, _MACS)
    for turn in range(seeds):
        for spec in pool:
            number = tries[spec.architecture] + turn
            if number < seeds and (not chosen or spent + cost(spec) <= _MACS):
                chosen.append(replace(spec, seed=number))
                spent += cost(spec)
    return chosen
