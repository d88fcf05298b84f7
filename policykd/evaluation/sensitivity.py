"""Which numbers of an observation move a policy's action: each is shuffled among the visited states, one at a time.

Permutation importance (Breiman 2001, section 10; Fisher, Rudin and Dominici 2019, arXiv:1801.01489), asked of what the
policy does instead of how well: where x' is x with number i taken from another visited state,

  of choices and bits   the share of states whose mode action is another one
  of numbers            sum_a E[(a(x) - a(x'))^2] / (2 sum_a Var[a(x)]): of an input that is independent of the others
                        this is its total Sobol index (Jansen 1999; Saltelli et al. 2010, table 2f), the part of the
                        action's variance in which it has a hand

Numbers that depend on each other are torn apart: x' may be a state that nobody visits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.evaluation.agreement import mode_actions
from policykd.evaluation.numbers import Number, examined
from policykd.loss.acting import params_on
from policykd.spine.types import Array, Policy

MOST = 64  # numbers, which is as many passes over the states for each policy
_ROWS, _FEWEST, _MOST_STATES = 2**15, 256, 4096  # that each policy acts on, all shuffles together
_IMAGE_DIMS = 3  # one pixel says nothing


def sensitivity(
    teacher: Policy, student: Policy, visited: Array, masks: Array | None = None
) -> list[dict[str, Any]] | None:
    """`name`, and the sensitivities of `student` and `teacher`, of each number of visited packed observations [K, *O],
    the one that moves the student most first; masks [K, n] stay with their state. None for images alone."""
    leaves = [leaf for leaf in teacher.packing.leaves if len(leaf.shape) < _IMAGE_DIMS]
    numbers = examined(leaves, MOST)
    if not numbers or len(visited) < 2:
        return None
    states = min(max(_ROWS // len(numbers), _FEWEST), _MOST_STATES, len(visited))
    rows = np.linspace(0, len(visited) - 1, states).astype(int)
    seen, allowed = visited[rows], None if masks is None else masks[rows]
    own, theirs = (_moved(policy, numbers, seen, allowed) for policy in (student, teacher))
    found = [
        {"name": one.name, "student": float(a), "teacher": float(b)}
        for one, a, b in zip(numbers, own, theirs, strict=True)
    ]
    return sorted(found, key=lambda entry: (-float(entry["student"]), str(entry["name"])))


def _moved(policy: Policy, numbers: Sequence[Number], seen: Array, masks: Array | None) -> NDArray[np.float64]:
    """The policy's sensitivity to each number; 0 where its action never changes."""
    order = np.random.default_rng(0).permutation(len(seen))
    before = _actions(policy, seen, masks)
    found = []
    for number in numbers:
        shuffled = seen.copy()
        flat = shuffled.reshape(len(shuffled), -1)
        flat[:, number.column] = flat[order, number.column]
        after = _actions(policy, shuffled, masks)
        if policy.action_map.kind not in ("clip", "unscale"):
            found.append(float((after != before).any(-1).mean()))
            continue
        spread = 2.0 * before.var(0).sum()
        found.append(float(np.square(after - before).mean(0).sum() / spread) if spread > 0 else 0.0)
    return np.asarray(found)


def _actions(policy: Policy, seen: Array, masks: Array | None) -> NDArray[np.float64]:
    """Mode actions [K, A] of the environment."""
    parts = [mode_actions(policy, params) for params in params_on(policy, seen, masks)]
    return np.concatenate(parts).astype(np.float64).reshape(len(seen), -1)
