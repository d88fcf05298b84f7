"""Fails when a tree does not fit its labels, when cutting it is not stopping sooner, or when weights are not obeyed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policykd.data.dataset import Dataset
from policykd.learn.updates.trees import TreeFitter, grow, with_values
from policykd.loss.distributions import Categorical
from policykd.loss.losses import Loss
from policykd.spine.seeding import SeedKey
from policykd.students.spec import MemberSpec
from policykd.students.tree_family import TreeFamily
from tests.support.core import FAMILIES

pytest.importorskip("sklearn", reason="trees need scikit-learn: pip install policykd[tree]")
RNG = np.random.default_rng(0)


class _Quiet:
    def check(self) -> None: ...
    def advance(self, n: int = 1) -> None: ...


def _params(family: str, n: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=(n, FAMILIES[family][0].n_params)).astype("f4"))


@pytest.mark.parametrize("family", FAMILIES)
def test_enough_leaves_give_the_teachers_mode_everywhere(family: str) -> None:
    distribution = FAMILIES[family][0]
    x, params = RNG.normal(size=(60, 3)).astype("f4"), _params(family, 60)
    nodes = with_values(distribution, grow(distribution, x, params, 60, 0).cut(60), x, params)
    nodes.check(3)
    own = torch.from_numpy(nodes.outputs(x))
    spread = torch.zeros(60, distribution.n_params - own.shape[1])
    found, wanted = distribution.mode(torch.cat([own, spread], -1)), distribution.mode(params)
    assert torch.allclose(found.float(), wanted.float(), atol=2e-4)


@pytest.mark.parametrize("family", ["categorical", "multi", "gaussian"])
def test_a_cut_tree_is_the_tree_of_fewer_leaves(family: str) -> None:
    distribution = FAMILIES[family][0]
    x = RNG.normal(size=(400, 3)).astype("f4")
    params = _params(family, 400) + torch.from_numpy(3 * x[:, :1] * np.ones((1, distribution.n_params), "f4"))
    many = grow(distribution, x, params, 40, 5)
    for leaves in (2, 7, 40):
        few = grow(distribution, x, params, leaves, 5).cut(leaves)
        cut = many.cut(leaves)
        assert len(few) == len(cut) == leaves - 1
        same = with_values(distribution, few, x, params).outputs(x)
        assert (with_values(distribution, cut, x, params).outputs(x) == same).all()


def test_a_leaf_holds_how_often_each_action_was_the_teachers() -> None:
    x = np.array([[0.0]] * 9 + [[1.0]], "f4")
    params = torch.tensor([[4.0, 0.0, -torch.inf]] * 6 + [[0.0, 4.0, 0.0]] * 3 + [[0.0, 0.0, 9.0]])
    distribution = Categorical(3)
    nodes = with_values(distribution, grow(distribution, x, params, 2, 0).cut(2), x, params)
    share = np.exp(nodes.outputs(np.zeros((1, 1), "f4"))[0])
    q = params[:9].softmax(-1).mean(0).numpy()
    assert share == pytest.approx((np.array([6, 3, 0]) + q) / 10, abs=1e-6)


def _fitted(weigh: bool, seed: int = 0) -> TreeFamily:
    """Two groups of states on one side of what a single split can tell; the rare one has the larger gaps."""
    family = TreeFamily([MemberSpec(0, 0, 0, "tree", leaves=2)], 2, Categorical(2))
    dataset = Dataset(2, 2, 10_000, "cpu")
    if weigh:
        dataset.weigh = lambda labels: labels.max(-1).values - labels.min(-1).values
    x = torch.zeros(1000, 2)
    x[:500, 0] = 1.0  # the common question
    x[::20, 1] = 1.0  # the rare one
    params = torch.zeros(1000, 2)
    params[:, 0] = torch.where(x[:, 0] > 0, 0.1, -0.1)
    params[x[:, 1] > 0] = torch.tensor([-20.0, 20.0])
    dataset.append(x, params)
    fitter = TreeFitter(family, Loss("forward_kl", (1.0,), "hinton", False, (1.0,), "mode"))
    (metrics,) = fitter.fit(dataset, 0, SeedKey(seed, "update", 0), _Quiet())  # type: ignore[arg-type]
    assert np.isfinite(metrics.loss).all()
    return family


def test_weights_say_which_question_is_asked_first() -> None:
    assert _fitted(weigh=False).nodes(0).feature.tolist() == [0]
    assert _fitted(weigh=True).nodes(0).feature.tolist() == [1]


def test_the_flat_vector_is_the_family() -> None:
    family, other = _fitted(weigh=True), _fitted(weigh=False)
    x = torch.randn(50, 2)
    wanted = family.member(0)(x)
    assert not torch.equal(other.member(0)(x), wanted)
    other.flat.copy_(family.flat)
    assert torch.equal(other.member(0)(x), wanted)
    empty = TreeFamily([MemberSpec(0, 0, 0, "tree", leaves=9)], 2, Categorical(2))
    assert torch.equal(empty.member(0)(x), torch.zeros(50, 2)), "zeros are a tree of one leaf"
