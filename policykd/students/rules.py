"""A decision tree in words: the same tree that acts, in the units of the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from policykd.loss.distributions import Bernoulli, MultiCategorical, is_gaussian
from policykd.spine.features import Feature, features_of
from policykd.spine.types import Array
from policykd.students.tree import TreeStudent

_MOST_TEXT = 60  # of a name, which may come from anywhere


def rules_of(student: TreeStudent) -> str:
    """The whole tree as nested ifs, one line for each question and each leaf, with what the tree is on top."""
    nodes = student.nodes
    size = f"{len(nodes.value)} leaves, at most {nodes.depth} questions for an action, {nodes.footprint.params} numbers"
    head = [f"# A decision tree of {size}.", "# Observations and actions are in the units of the environment."]
    if student.masked:
        head.append("# What the mask forbids is passed over: then the likeliest action that is allowed is taken.")
    return "\n".join([*head, "", *_lines(student)]) + "\n"


def questions_of(student: TreeStudent, digits: int = 9) -> list[str]:
    """The question of each inner node, for which yes is the first child; 9 digits tell every float32."""
    features = features_of(student.packing.leaves)
    pairs = zip(student.nodes.feature, student.nodes.threshold, strict=True)
    return [_question(features[int(feature)], float(threshold), digits) for feature, threshold in pairs]


def answers_of(student: TreeStudent) -> list[str]:
    """What each leaf does: the environment's action, and how sure the leaf is where it holds probabilities."""
    values = torch.from_numpy(student.nodes.value)
    whole = torch.cat([values, torch.zeros(len(values), student.distribution.n_params - values.shape[1])], -1)
    actions = student.action_map(student.distribution.mode(whole).numpy())
    sure = [""] * len(values) if is_gaussian(student.distribution) else [f" ({p:.0%})" for p in _sureness(student)]
    return [f"action {_action(action)}{p}" for action, p in zip(actions, sure, strict=True)]


def _lines(student: TreeStudent) -> Iterator[str]:
    """Depth first, without recursion: a tree may be a thousand questions deep."""
    children, questions, answers = student.nodes.children, questions_of(student), answers_of(student)
    waiting: list[tuple[int | None, int]] = [(0 if len(student.nodes) else -1, 0)]  # None: the other way from here
    while waiting:
        node, depth = waiting.pop()
        bars = "|   " * depth
        if node is None:
            yield f"{bars}else:"
        elif node < 0:
            yield f"{bars}{answers[-1 - node]}"
        else:
            yes, no = map(int, children[node])
            yield f"{bars}if {questions[node]}:"
            waiting += [(no, depth + 1), (None, depth), (yes, depth + 1)]


def _question(feature: Feature, threshold: float, digits: int) -> str:
    name = plain(feature.name)
    if feature.choice is not None:  # one of its choices: 1 or 0
        return f"{name} is not {feature.choice}"
    return f"{name} <= {threshold:.{digits}g}"


def plain(text: str) -> str:
    """A name from an observation space, on one line."""
    return re.sub(r"[^\w .,:;()\[\]<>=+-]", "_", text)[:_MOST_TEXT]


def _action(action: Array) -> str:
    values = np.asarray(action)
    if values.dtype.kind == "f":
        return _listed([f"{value:.4g}" for value in values.reshape(-1)], values.ndim)
    return _listed([str(int(value)) for value in values.reshape(-1)], values.ndim)


def _listed(words: list[str], dimensions: int) -> str:
    return words[0] if dimensions == 0 else f"[{', '.join(words)}]"


def _sureness(student: TreeStudent) -> NDArray[np.float64]:
    """[L] the probability of each leaf's action: of all its branches or bits together."""
    values, distribution = torch.from_numpy(student.nodes.value).double(), student.distribution
    if isinstance(distribution, Bernoulli):
        return torch.sigmoid(values.abs()).prod(-1).numpy()
    sizes = list(distribution.nvec) if isinstance(distribution, MultiCategorical) else [values.shape[-1]]
    best = [part.softmax(-1).max(-1).values for part in values.split(sizes, -1)]
    return torch.stack(best).prod(0).numpy()
