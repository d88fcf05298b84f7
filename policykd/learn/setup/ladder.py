"""Which sizes lie between a teacher and a student that is far smaller."""

from __future__ import annotations

import math
from collections.abc import Callable

_WIDEST = 4096


def ladder(teacher: int, size: Callable[[int], int], width: int, factor: float) -> list[int]:
    """Widths between a teacher of so many parameters and a student of `width`, widest first: the fewest such that equal
    ratios of parameters from step to step are at most `factor`. `size` gives a width's parameters, and grows."""
    ratio = teacher / size(width)
    steps = math.ceil(math.log(ratio) / math.log(factor) - 1e-9) if ratio > 1 else 1
    found = []
    for step in range(1, steps):
        target = teacher / ratio ** (step / steps)
        wider = next(w for w in range(width + 1, _WIDEST + 1) if size(w) >= target or w == _WIDEST)
        nearest = min((wider - 1, wider), key=lambda w: abs(math.log(size(w) / target)))
        if nearest > width and nearest not in found:
            found.append(nearest)
    return found
