"""Random decision trees of every distribution, for any observation space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policykd.students.nodes import Nodes
from policykd.students.tree import TreeStudent, no_normaliser
from tests.support.core import student
from tests.support.export_cases import on_space


def random_nodes(n_inputs: int, n_outputs: int, leaves: int, seed: int = 0, *, bits: bool = False) -> Nodes:
    """A tree that grew by splitting leaves at random; thresholds about 0, or of `bits` at a half."""
    rng = np.random.default_rng(seed)
    children: list[list[int]] = []
    ends = [(-1, 0)]  # (parent, side) of every leaf
    while len(ends) < leaves:
        parent, side = ends.pop(int(rng.integers(len(ends))))
        if parent >= 0:
            children[parent][side] = len(children)
        ends += [(len(children), 0), (len(children), 1)]
        children.append([0, 0])
    for leaf, (parent, side) in enumerate(ends):
        if parent >= 0:
            children[parent][side] = -1 - leaf
    inner = len(children)
    threshold = np.full(inner, 0.5) if bits else rng.normal(size=inner)
    return Nodes(
        rng.integers(0, n_inputs, inner),
        threshold.astype(np.float32),
        np.asarray(children, np.int64).reshape(-1, 2),
        rng.normal(size=(leaves, n_outputs)).astype(np.float32),
    )


def tree(
    family: str, leaves: int = 12, space: spaces.Space[Any] | None = None, *, masked: bool = False, seed: int = 0
) -> TreeStudent:
    """A random tree of that distribution."""
    like = student(family) if space is None else on_space(space, family)
    n_inputs = like.packing.n_features
    return TreeStudent(
        no_normaliser(n_inputs),
        random_nodes(n_inputs, like.distribution.n_means, leaves, seed, bits=space is not None),
        torch.zeros_like(like.log_std),
        like.distribution,
        like.action_map,
        like.observation_space,
        like.action_space,
        masked=masked,
    )
