"""How far a target may be from the reference: at most four times what torch's own float32 is off.

Let e be the largest error of torch in float32 against the same graph in float64 over the test vectors, for each number
of the action (or of the outputs), at least half the float32 spacing of the largest value, as no float32 does better;
m the largest magnitude there. Then |found - expected| <= 2 e + 2 (e / m) |expected|, which is at most 4 e. Choices must
be equal, but where the highest two logits are nearer to each other than twice the largest tolerance of a logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.export.graph import Array, Feed, Graph
from policykd.export.reference import decided, margins, run

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bound:
    """|found - expected| <= absolute + relative * |expected|, entry by entry: [A] each."""

    absolute: Doubles
    relative: Doubles

    def exceeded(self, found: Array, expected: Array) -> NDArray[np.bool_]:
        """[B, A]: where the bound does not hold. A NaN never holds."""
        found, expected = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (found, expected))
        return ~(np.abs(found - expected) <= self.absolute + self.relative * np.abs(expected))

    def to_json(self) -> dict[str, Any]:
        """The numbers as lists."""
        return {"absolute": self.absolute.tolist(), "relative": self.relative.tolist()}

    @classmethod
    def from_json(cls, doc: dict[str, Any]) -> Bound:
        """The inverse of `to_json`; ValueError for anything but finite numbers that are not negative."""
        absolute, relative = (np.asarray(doc[name], np.float64) for name in ("absolute", "relative"))
        if absolute.ndim != 1 or absolute.shape != relative.shape or absolute.size > 2**20:
            raise ValueError("a tolerance is two lists of one length")
        if not (np.isfinite([absolute, relative]).all() and (absolute >= 0).all() and (relative >= 0).all()):
            raise ValueError("a tolerance is finite and not negative")
        return cls(absolute, relative)


@dataclass(frozen=True, eq=False)
class Tolerance:
    """`action`: of numbers, None for choices and bits. `outputs`: of logits or means [M]. `margin`: choices whose
    highest two logits are nearer than this may differ."""

    action: Bound | None
    outputs: Bound
    margin: float


def tolerance_of(graph: Graph, feed: Feed, torch_action: Array, torch_outputs: Array) -> Tolerance:
    """From what torch computed in float32 for the same feed: actions [B, *shape], outputs [B, M]."""
    exact = run(graph, feed)
    outputs = _bound(torch_outputs, exact.outputs)
    numbers = graph.head.kind == "numbers"
    widest = float(np.max(outputs.absolute + outputs.relative * np.abs(exact.outputs).max(0)))
    return Tolerance(_bound(torch_action, exact.action) if numbers else None, outputs, 0.0 if numbers else 2 * widest)


def _bound(found: Array, exact: Array) -> Bound:
    found, exact = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (found, exact))
    largest = np.maximum(np.abs(exact).max(0), np.finfo(np.float32).tiny)
    error = np.maximum(np.abs(found - exact).max(0), np.spacing(largest.astype(np.float32)).astype(np.float64) / 2)
    return Bound(2 * error, 2 * error / largest)


def margin_of(graph: Graph, feed: Feed) -> Array:
    """[B, K]: how far the winner of each choice is ahead, with mask and noise; inf for numbers, [B, 1]."""
    if graph.head.kind == "numbers":
        return np.full((len(feed), 1), np.inf)
    return margins(graph, decided(graph, run(graph, feed).outputs, feed))
