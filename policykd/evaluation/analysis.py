"""Where a student differs from its teacher: the teacher's entropy and the disagreement, over the states it visited.

The document of analysis.json (docs/result.md). Only numbers that were observed are in it, none of a name or an id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.evaluation.agreement import same_on
from policykd.evaluation.entropy import entropies_on
from policykd.spine.features import name_of
from policykd.spine.packing import Packing
from policykd.spine.types import Array, Policy, is_recurrent

MOST_FEATURES = 64  # in the file
_EXAMINED = 512  # an image has thousands of numbers, each of which says little
_BINS = 10
_FEWEST = 20  # states of a bin, on average: below it a share says nothing
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def analysis(
    teacher: Policy, student: Policy, visited: Array, masks: Array | None = None, *, episodes: int | None = None
) -> dict[str, Any]:
    """The document of analysis.json for raw packed observations `visited` [K, *O] of the student's episodes, with the
    actions allowed there, `masks` [K, n].

    `entropy` is None for a teacher whose distribution is not its own (Q-values, a fixed spread). Beside a policy with a
    memory a state alone says nothing: then `entropy` and `differ` are None and `disagreement` empty. Raises
    NumericsError for a NaN.
    """
    packing = teacher.packing
    document: dict[str, Any] = {
        "format": 1,
        "states": len(visited),
        "episodes": episodes,
        "features": sum(leaf.size for leaf in packing.leaves),
        "differ": None,
        "entropy": None,
        "disagreement": [],
    }
    if not len(visited) or is_recurrent(teacher) or is_recurrent(student):
        return document
    document["entropy"] = _entropy(teacher, visited, masks)
    differ = ~same_on(teacher, student, visited, masks)
    document["differ"] = float(differ.mean())
    found = [_by_feature(one, differ) for one in _numbers(packing, visited)]
    found.sort(key=lambda entry: (-entry["spread"], entry["name"]))
    document["disagreement"] = found[:MOST_FEATURES]
    return document


def _entropy(teacher: Policy, visited: Array, masks: Array | None) -> dict[str, Any] | None:
    """Mean, quantiles and a histogram in nats; none of it where an entropy is not finite."""
    entropies = entropies_on(teacher, visited, masks)
    if entropies is None:
        return None
    values = entropies.double().cpu().numpy()
    if not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:  # one value, but for rounding
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, bins=24, range=(low, high))
    quantiles = np.quantile(values, _QUANTILES)
    return {
        "mean": float(values.mean()),
        "quantiles": {f"{q:g}": float(value) for q, value in zip(_QUANTILES, quantiles, strict=True)},
        "histogram": {"edges": edges.tolist(), "count": counts.tolist()},
    }


@dataclass(frozen=True)
class _Number:
    """One number of an observation over K states: its name, its values [K]; `choice` where they only name a choice."""

    name: str
    values: Floats
    choice: bool


def _numbers(packing: Packing, visited: Array) -> list[_Number]:
    """The numbers to examine: those of small entries first; of what is left over, evenly spaced ones."""
    flat = visited.reshape(len(visited), -1)
    room, chosen = _EXAMINED, []
    for leaf in sorted(packing.leaves, key=lambda leaf: (leaf.size, leaf.begin)):
        picked = np.unique(np.linspace(0, leaf.size - 1, min(leaf.size, room)).astype(int))
        room -= len(picked)
        chosen += [
            _Number(name_of(leaf, index), flat[:, leaf.begin + index].astype(np.float64), bool(leaf.nvec))
            for index in picked.tolist()
        ]
    return chosen


def _by_feature(number: _Number, differ: Bools) -> dict[str, Any]:
    """Disagreement over the bins of one number; `values` where each bin is one value."""
    finite = np.isfinite(number.values)
    values, differ = number.values[finite], differ[finite]
    edges, single, bin_of = _bins(values, number.choice)
    n_bins = max(len(edges) - 1, 0)
    count = np.bincount(bin_of, minlength=n_bins)
    share = np.bincount(bin_of, weights=differ, minlength=n_bins) / np.maximum(count, 1)
    return {
        "name": number.name,
        "edges": edges.tolist(),
        "values": None if single is None else single.tolist(),
        "share": share.tolist(),
        "count": count.tolist(),
        "spread": _spread(share, count),
    }


def _bins(values: Floats, choice: bool) -> tuple[Floats, Floats | None, NDArray[np.intp]]:
    """Edges [n + 1], the single values of the bins [n] where there are so few, and which bin each value is in.

    Quantiles, so that bins hold about as many states each; a value that many states share is not split.
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    if len(distinct) <= (4 * _BINS if choice else _BINS):
        middles = (distinct[1:] + distinct[:-1]) / 2
        return np.concatenate([distinct[:1], middles, distinct[-1:]]), distinct, inverse
    n_bins = max(2, min(_BINS, len(values) // _FEWEST))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1)))
    if len(edges) < 3:  # nearly all states share one value
        edges = np.array([distinct[0], distinct[len(distinct) // 2], distinct[-1]])
    bin_of = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return edges, None, bin_of


def _spread(share: Floats, count: NDArray[np.intp]) -> float:
    """Standard deviation of the share over the bins, weighted by states, less what chance alone would give."""
    total = count.sum()
    if total == 0:
        return 0.0
    mean = float((share * count).sum() / total)
    variance = float(((share - mean) ** 2 * count).sum() / total)
    by_chance = mean * (1 - mean) * (int((count > 0).sum()) - 1) / float(total)
    return float(np.sqrt(max(variance - by_chance, 0.0)))
