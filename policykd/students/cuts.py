"""Cutting a family into groups that are trained together."""

from __future__ import annotations

from collections.abc import Callable


def cheapest_cuts(count: int, cost: Callable[[int, int], float]) -> list[slice]:
    """Cuts `count` members into groups of neighbours, where members i to j - 1 together cost `cost(i, j)`.

    Dynamic programming over cut points: best[j] = min over i of best[i] + cost(i, j).
    """
    best: list[float] = [0.0]
    cut: list[int] = [0]
    for j in range(1, count + 1):
        least, start = min((best[i] + cost(i, j), i) for i in range(j))
        best.append(least)
        cut.append(start)
    groups: list[slice] = []
    end = count
    while end:
        groups.append(slice(cut[end], end))
        end = cut[end]
    return groups[::-1]
