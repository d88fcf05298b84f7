"""Decision trees, refitted in every round: VIPER (Bastani et al. 2018, arXiv:1805.08328, algorithm 1).

In the place of updates each round resamples the aggregated states (by data.weighting, in the paper in proportion to
V*(s) - min_a Q*(s, a)) and grows a tree by CART (Breiman et al. 1984, scikit-learn's implementation), best split first,
on the teacher's modes. The tree with fewer leaves is the same tree, stopped sooner.

Where it differs from the paper: leaves hold how often each action was the teacher's, and not only the commonest one, so
that masks and samples have something to choose from; of Gaussians a leaf holds the mean of the teacher's means; and as
with all students the best of the last rounds is kept, not of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.data.sequences import SequenceDataset
from policykd.learn.updates.update import UpdateMetrics
from policykd.loss.distributions import Bernoulli, Distribution, MultiCategorical, is_gaussian
from policykd.loss.losses import Loss
from policykd.spine.errors import InputError
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array, Progress
from policykd.students.nodes import Nodes, beneath
from policykd.students.tree_family import TreeFamily

_MOST = 30_000  # states that a tree is fitted to: about a second on one core
_LEAST_SHARE = 1e-6  # of an action in a leaf, so that its logarithm is finite
_UNIT = 0.9999  # of a squashed action: its mean before the tanh is finite


def require_packages() -> None:
    """InputError where scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise InputError("student.kind tree: needs scikit-learn, not installed: pip install 'policykd[tree]'")


class TreeFitter:
    """What the `Learner` is for families that descend gradients: a round's fit, and the state between rounds."""

    n_updates = 1  # fits of a round

    def __init__(self, family: TreeFamily, loss: Loss) -> None:
        self.family, self.loss = family, loss

    def fit(
        self, dataset: Dataset | SequenceDataset, round_index: int, key: SeedKey, progress: Progress
    ) -> list[UpdateMetrics]:
        """Grows every member anew: one tree for each seed, cut to each number of leaves.

        The loss of each member is that on the states that it was fitted to. Raises Interrupted when asked to stop.
        """
        assert isinstance(dataset, Dataset)
        family, generator = self.family, key.torch(self.family.device)
        losses = [0.0] * len(family)
        for seed in sorted({spec.seed for spec in family.specs}):
            progress.check()
            drawn = dataset.draw(1, min(len(dataset), _MOST), generator)[0]
            inputs, params = dataset.take(drawn)
            seen = inputs.cpu().numpy()
            members = {i: spec.leaves for i, spec in enumerate(family.specs) if spec.seed == seed}
            grown = grow(family.distribution, seen, params, max(members.values()), int(key.numpy(seed).integers(2**31)))
            for index, leaves in members.items():
                family.put(index, with_values(family.distribution, grown.cut(leaves), seen, params))
                own = family.member(index)(inputs)
                losses[index] = float(self.loss.among([index])(family.distribution, params, own).mean())
        progress.advance()
        return [UpdateMetrics(round_index, losses)]

    def state(self) -> dict[str, Tensor]:
        """The trees, enough to continue bit for bit."""
        return {"flat": self.family.flat}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.family.flat.copy_(state["flat"])


@dataclass(frozen=True, eq=False)
class Grown:
    """A tree as scikit-learn grew it: of each node its children (-1: a leaf), feature and threshold. Nodes are numbered
    as they were split, the best first, so that those below 2 n - 1 are the tree of n leaves."""

    children: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]

    def cut(self, leaves: int) -> Nodes:
        """The tree of at most so many leaves, whose leaves hold nothing yet."""
        last = 2 * leaves - 1
        inner = [i for i, (left, right) in enumerate(self.children) if left >= 0 and max(left, right) < last]
        number = {node: i for i, node in enumerate(inner)}
        ends = sorted({0, *self.children[inner].reshape(-1).tolist()} - set(inner))
        number |= {node: -1 - i for i, node in enumerate(ends)}
        children = [[number[int(child)] for child in self.children[i]] for i in inner]
        return Nodes(
            self.feature[inner],
            beneath(self.threshold[inner]),
            np.asarray(children, np.int64).reshape(-1, 2),
            np.zeros((len(ends), 0), np.float32),
        )


def grow(distribution: Distribution, inputs: Array, params: Tensor, leaves: int, seed: int) -> Grown:
    """A tree of at most so many leaves for inputs [n, F] and labels [n, P]: of the teacher's modes, all branches or
    bits in one tree; of Gaussians by least squares on the means (after the tanh of squashed ones)."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    target = distribution.mode(params).cpu().numpy()
    kind: Any = DecisionTreeRegressor if is_gaussian(distribution) else DecisionTreeClassifier
    tree = kind(max_leaf_nodes=leaves, random_state=seed).fit(inputs, target).tree_
    children = np.stack([tree.children_left, tree.children_right], 1).astype(np.int64)
    return Grown(children, tree.feature.astype(np.int64), tree.threshold.astype(np.float64))


def with_values(distribution: Distribution, nodes: Nodes, inputs: Array, params: Tensor) -> Nodes:
    """The tree with what its leaves give, from the states in each of them: inputs [n, F], labels [n, P].

    Log-probabilities of the actions: how often each was the teacher's, with the teacher's own mean probabilities as one
    state more. Logits of bits likewise. Of Gaussians the mean.
    """
    leaf = nodes.leaf_of(inputs)
    count = np.bincount(leaf, minlength=len(nodes.value))[:, None]

    def total(values: Tensor) -> NDArray[np.float64]:
        found = np.zeros((len(nodes.value), values.shape[1]))
        np.add.at(found, leaf, values.cpu().double().numpy())
        return found

    mode = distribution.mode(params)
    if is_gaussian(distribution):
        value = total(mode) / count
        if distribution.to_json()["type"] == "SquashedDiagGaussian":
            value = np.arctanh(np.clip(value, -_UNIT, _UNIT))
    elif isinstance(distribution, Bernoulli):
        share = (total(mode) + total(torch.sigmoid(params)) / count) / (count + 1)
        share = np.clip(share, _LEAST_SHARE, 1 - _LEAST_SHARE)
        value = np.log(share) - np.log1p(-share)
    else:
        sizes = distribution.nvec if isinstance(distribution, MultiCategorical) else (params.shape[-1],)
        choices = mode.reshape(len(params), -1).T
        hot = [torch.nn.functional.one_hot(own, n) for own, n in zip(choices, sizes, strict=True)]
        own = torch.cat([part.softmax(-1) for part in params.split(list(sizes), -1)], -1)
        share = (total(torch.cat(hot, -1)) + total(own) / count) / (count + 1)
        value = np.log(np.maximum(share, _LEAST_SHARE))
    return Nodes(nodes.feature, nodes.threshold, nodes.children, value.astype(np.float32))
