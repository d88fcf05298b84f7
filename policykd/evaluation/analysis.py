"""Where a student differs from its teacher: the teacher's entropy, the disagreement and what moves either's action,
over the states it visited.

The document of analysis.json (docs/result.md). Only numbers that were observed are in it, none of a name or an id.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.evaluation.agreement import same_on
from policykd.evaluation.entropy import entropies_on
from policykd.evaluation.numbers import examined
from policykd.evaluation.sensitivity import sensitivity
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

    `entropy` and `by_entropy` are None for a teacher whose distribution is not its own (Q-values, a fixed spread).
    Beside a policy with a memory a state alone says nothing: then all but the counts is None and `disagreement` empty.
    Raises NumericsError for a NaN.
    """
    packing = teacher.packing
    document: dict[str, Any] = {
        "format": 1,
        "states": len(visited),
        "episodes": episodes,
        "features": sum(leaf.size for leaf in packing.leaves),
        "differ": None,
        "entropy": None,
        "by_entropy": None,
        "disagreement": [],
        "sensitivity": None,
    }
    if not len(visited) or is_recurrent(teacher) or is_recurrent(student):
        return document
    entropies = _entropies(teacher, visited, masks)
    differ = ~same_on(teacher, student, visited, masks)
    document["differ"] = float(differ.mean())
    if entropies is not None:
        document["entropy"] = _entropy(entropies)
        document["by_entropy"] = _by_values("entropy of the teacher", entropies, differ)
    flat = visited.reshape(len(visited), -1)
    found = [
        _by_values(one.name, flat[:, one.column].astype(np.float64), differ, entropies, choice=one.choice)
        for one in examined(packing.leaves, _EXAMINED)
    ]
    found.sort(key=lambda entry: (-entry["spread"], entry["name"]))
    document["disagreement"] = found[:MOST_FEATURES]
    document["sensitivity"] = sensitivity(teacher, student, visited, masks)
    return document


def _entropies(teacher: Policy, visited: Array, masks: Array | None) -> Floats | None:
    """Of each state, in nats; None where it is not known, or one is not finite."""
    entropies = entropies_on(teacher, visited, masks)
    values = None if entropies is None else entropies.double().cpu().numpy()
    return values if values is not None and np.isfinite(values).all() else None


def _entropy(values: Floats) -> dict[str, Any]:
    """Mean, quantiles and a histogram in nats."""
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


def _by_values(
    name: str, values: Floats, differ: Bools, entropies: Floats | None = None, *, choice: bool = False
) -> dict[str, Any]:
    """Disagreement, and the teacher's mean entropy, over the bins of some numbers [K], one for each state; `values`
    where each bin is one value."""
    finite = np.isfinite(values)
    values, differ = values[finite], differ[finite]
    edges, single, bin_of = _bins(values, choice)
    n_bins = max(len(edges) - 1, 0)
    count = np.bincount(bin_of, minlength=n_bins)
    share = np.bincount(bin_of, weights=differ, minlength=n_bins) / np.maximum(count, 1)
    found = {
        "name": name,
        "edges": edges.tolist(),
        "values": None if single is None else single.tolist(),
        "share": share.tolist(),
        "count": count.tolist(),
        "spread": _spread(share, count),
    }
    if entropies is not None:
        total = np.bincount(bin_of, weights=entropies[finite], minlength=n_bins)
        found["entropy"] = (total / np.maximum(count, 1)).tolist()
    return found


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
