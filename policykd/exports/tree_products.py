"""A decision tree as matrix products, for runtimes without loops.

The strategy GEMM of Hummingbird (Nakandala et al. 2020, arXiv:2010.04804, section 4.1): every question is asked at
once; a leaf is reached where all those above it were answered as its way says. All sums are of whole numbers, or of one
number and zeros, so that nothing is rounded. A NaN counts as a yes here, and is not noticed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policykd.exports.graph import Graph, Tree
from policykd.spine.errors import InputError
from policykd.students.nodes import Nodes

Floats = NDArray[np.float32]
MOST_LEAVES = 1024  # the ways take so many numbers squared


@dataclass(frozen=True, eq=False)
class Products:
    """`ways` [N, L]: 1 where leaf l is on the no side of node n, -1 on its yes side, else 0. `reached` [L]: a leaf is
    where noes @ ways is above this, half a unit below the number of its noes."""

    ways: Floats
    reached: Floats


def products_of(nodes: Nodes) -> Products:
    """Of a tree with a question at least."""
    leaves = len(nodes.value)
    above: list[list[tuple[int, int]]] = [[] for _ in nodes.feature]  # of each inner node, with the side
    ways = np.zeros((len(nodes), leaves), np.float32)
    for node, pair in enumerate(nodes.children):
        for side, child in zip((-1, 1), map(int, pair), strict=True):
            way = [*above[node], (node, side)]
            if child >= 0:
                above[child] = way
            else:
                for at, answer in way:
                    ways[at, -1 - child] = answer
    return Products(ways, (ways > 0).sum(0).astype(np.float32) - np.float32(0.5))


def refuse_trees(graph: Graph, target: str, *, least: int = 1) -> None:
    """InputError for a tree that is too large for products, or too small for a runtime that knows no empty ones."""
    for layer in graph.layers:
        if isinstance(layer, Tree) and not least <= len(layer.nodes.value) <= MOST_LEAVES:
            raise InputError(
                f"--to {target}: a tree of {len(layer.nodes.value)} leaves, expected {least} to {MOST_LEAVES}: choose "
                "c or json"
            )
