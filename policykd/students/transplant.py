"""The first weights of a student from those of another: what both have is copied, and what is new has no say yet.

So the new student computes what the old one did, as long as no observation is clipped:

  normaliser  The old weights w, b saw (x - m) s, the new ones see (x - m') s'. With w' = w s / s' and
              b' = b + sum((m' - m) s w) both make the same of every x.
  wider       New units get first weights as usual on the way in, and zeros on the way out (the function is preserved,
              as in Net2Net: Chen et al. 2016, arXiv:1511.05641, which copies units instead).
  new inputs  start with zeros, and so do new outputs; gradients reach both at once.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.packing import Leaf, Packing
from policykd.students.family import Family
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser

Places = NDArray[np.intp]
Layers = tuple[tuple[Tensor, Tensor], ...]
"""(weight [in, out], bias [out]) each."""


def shared_inputs(old: Packing, new: Packing) -> tuple[Places, Places]:
    """[K] places of the features that both see, in the old student's input and in the new one's.

    Entries of observations belong together by their keys; of a vector that is longer in one, the first numbers do.
    """
    known = {leaf.path: (leaf, at) for leaf, at in _ranges(old)}
    pairs = [(*known[leaf.path], leaf, at) for leaf, at in _ranges(new) if leaf.path in known]
    parts = [(a + np.arange(n), b + np.arange(n)) for was, a, leaf, b in pairs if (n := _alike(was, leaf))]
    if not parts:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def shared_outputs(old: Distribution, new: Distribution) -> tuple[Places, Places]:
    """[K] places of the means or logits that both make; of several choices, those of each; none where the
    distributions are of two types."""
    if type(old) is not type(new):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    before, after = _branches(old), _branches(new)
    pairs = zip(before, [0, *accumulate(before)], after, [0, *accumulate(after)], strict=False)
    parts = [(a + np.arange(min(m, n)), b + np.arange(min(m, n))) for m, a, n, b in pairs]
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def refitted(old: MlpStudent, packing: Packing, distribution: Distribution, normaliser: Normaliser) -> Layers:
    """The old student's layers for these inputs, outputs and this normaliser; its hidden layers keep their sizes."""
    was, now = shared_inputs(old.packing, packing)
    mean, scale = (np.asarray(x, np.float64)[was] for x in (old.normaliser.mean, old.normaliser.scale))
    new_mean, new_scale = (np.asarray(x, np.float64)[now] for x in (normaliser.mean, normaliser.scale))
    layers = [(w.cpu().double().numpy(), b.cpu().double().numpy()) for w, b in old.layers]
    weight, bias = layers[0]
    first = np.zeros((packing.n_features, weight.shape[1]))
    first[now] = weight[was] * (scale / new_scale)[:, None]
    layers[0] = first, bias + ((new_mean - mean) * scale) @ weight[was]
    weight, bias = layers[-1]
    left, right = shared_outputs(old.distribution, distribution)
    last, ends = np.zeros((len(weight), distribution.n_means)), np.zeros(distribution.n_means)
    last[:, right], ends[right] = weight[:, left], bias[left]
    layers[-1] = last, ends
    return tuple((torch.from_numpy(w).float(), torch.from_numpy(b).float()) for w, b in layers)


def plant(family: Family, index: int, layers: Layers) -> None:
    """Makes these the member's first weights; it has the same number of layers, none of them narrower."""
    sizes = family.specs[index].sizes(family.n_inputs, family.n_means)
    places = [place.to(family.device) for place in family.places(index)]
    for k, ((weight, bias), size) in enumerate(zip(layers, sizes, strict=True)):
        rows, columns = weight.shape
        values = family.flat[places[2 * k]].view(size)
        values[:, :columns] = 0
        values[:rows, :columns] = weight.to(family.device)
        family.flat[places[2 * k]] = values.reshape(-1)
        family.flat[places[2 * k + 1][:columns]] = bias.to(family.device)


def plant_log_std(family: Family, old: MlpStudent) -> None:
    """The old student's spread, where it has the same number of its own."""
    left, right = shared_outputs(old.distribution, family.distribution)
    if len(old.log_std) and family.log_std.numel():
        family.log_std[..., torch.from_numpy(right)] = old.log_std[torch.from_numpy(left)].to(family.device)


def _ranges(packing: Packing) -> list[tuple[Leaf, int]]:
    """Each leaf with the place of its first feature."""
    starts = [0, *accumulate(leaf.n_features for leaf in packing.leaves)]
    return list(zip(packing.leaves, starts, strict=False))


def _alike(old: Leaf, new: Leaf) -> int:
    """How many features of two leaves mean the same, from the first on."""
    if old.nvec or new.nvec:
        return old.n_features if (old.nvec, old.start) == (new.nvec, new.start) else 0
    vectors = len(old.shape) == len(new.shape) == 1
    return min(old.size, new.size) if vectors or old.shape == new.shape else 0


def _branches(distribution: Distribution) -> list[int]:
    nvec: Any = distribution.to_json().get("nvec")
    return [int(n) for n in nvec] if nvec else [distribution.n_means]
