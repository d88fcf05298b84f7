"""The search for every side's settings: one knob after the other, with the same values for each side, then a final
among the best four on other seeds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks.machine import table
from benchmarks.peers.judging import Judge
from benchmarks.peers.tasks import Race, Values

Racer = Callable[[Any, int], Race]
_HOPELESS = 3.0  # times the best so far: a race that takes longer is stopped
_LONGEST = 60.0  # seconds on the clock
_FINALISTS = 4
_FIRST_SEED, _FINAL_SEED = 100, 200  # not those of the benchmark


@dataclass(frozen=True)
class Try:
    """One setting on every seed; `seconds` is the median, infinite where it was not reached; `final` that of the final,
    None where it was not in it."""

    setting: Any
    seconds: float
    timesteps: float
    reached: int
    seeds: int
    final: float | None = None


def descend(start: Any, knobs: Sequence[Values], race: Racer, judge: Judge, seeds: int) -> list[Try]:
    """Every setting that was tried, the winner first: coordinate descent over the knobs, in their order."""
    tried = {start: _try(start, race, judge, seeds, float("inf"))}
    best = tried[start]
    for values in knobs:
        for value in values:
            setting = replace(best.setting, **value)
            if setting not in tried:
                tried[setting] = _try(setting, race, judge, seeds, best.seconds)
        best = min(tried.values(), key=lambda one: one.seconds)
    ranked = sorted(tried.values(), key=lambda one: one.seconds)
    best_four = _final(ranked[:_FINALISTS], race, judge, seeds + 1)
    return best_four + ranked[_FINALISTS:]


def _try(setting: Any, race: Racer, judge: Judge, seeds: int, best: float) -> Try:
    found = [judge.finish(race(setting, _FIRST_SEED + k), min(_HOPELESS * best, _LONGEST)) for k in range(seeds)]
    seconds = median(finish.seconds for finish in found)
    timesteps = median(finish.checkpoint.timesteps for finish in found)
    sys.stderr.write(f"  {seconds:.2f} s: {setting}\n")
    return Try(setting, seconds, timesteps, sum(finish.reached for finish in found), seeds)


def _final(tries: Sequence[Try], race: Racer, judge: Judge, seeds: int) -> list[Try]:
    """In turns, so that a busy moment hits all; the fastest first."""
    spent: list[list[float]] = [[] for _ in tries]
    for k in range(seeds):
        for one, seconds in zip(tries, spent, strict=True):
            seconds.append(judge.finish(race(one.setting, _FINAL_SEED + k), _LONGEST).seconds)
    judged = [replace(one, final=median(seconds)) for one, seconds in zip(tries, spent, strict=True)]
    return sorted(judged, key=lambda one: one.final or 0.0)


def as_table(tries: Sequence[Try]) -> str:
    """All tries, the winner first."""
    rows = [
        [
            str(one.setting),
            "" if one.final is None else _shown(one.final),
            _shown(one.seconds),
            f"{one.timesteps:,.0f}",
            f"{one.reached} of {one.seeds}",
        ]
        for one in tries
    ]
    return table(["setting", "final, median s", "median, s", "timesteps", "reached"], rows)


def _shown(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < float("inf") else "not"
