"""Members that are left learn on as if the dropped ones had never been there. Red when a weight, its padding, a spread
or what Adam knows of it lands in the wrong place."""

from __future__ import annotations

import itertools

import pytest
import torch

from policykd.data.dataset import Dataset
from policykd.learn.updates.update import Learner
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.loss.losses import make_loss
from policykd.spine.config.data import UpdateConfig
from policykd.spine.seeding import SeedKey
from policykd.students.family import Family
from policykd.students.spec import MemberSpec
from policykd.students.subset import carried, subset
from tests.support.core import Quiet

INPUTS = 5
SPECS = [MemberSpec(0, 0), MemberSpec(0, 0, 1)] + [
    MemberSpec(depth, width, seed)
    for depth, width, seed in [
        *itertools.product((1, 2), (1, 2, 7, 16, 64), (0,)),
        *((1, 7, 1), (2, 64, 2), (2, 33, 0)),
    ]
]
KEEPS = [[0], [14], [1, 5, 6, 13], [3, 2], list(range(len(SPECS)))]
DISTRIBUTIONS = {"categorical": Categorical(4), "gaussian": DiagGaussian(2)}


def family_of(distribution, specs=SPECS):
    family = Family(specs, INPUTS, distribution, root_seed=3)
    family.log_std.uniform_(-1, 0, generator=torch.Generator().manual_seed(1))
    return family


def learner_of(family, rounds=4):
    config = UpdateConfig(n_updates=20, batch_size=64, max_grad_norm=0.5)
    return Learner(family, make_loss("forward_kl", 1.0, "hinton"), config, rounds)


def data(distribution):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, INPUTS, generator=generator)
    found = Dataset(INPUTS, distribution.n_params, 1000, "cpu")
    found.append(inputs, torch.tanh(inputs @ torch.randn(INPUTS, distribution.n_params, generator=generator)))
    return found


@pytest.mark.parametrize("keep", KEEPS, ids=str)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_members_do_what_they_did(name, keep):
    family = family_of(DISTRIBUTIONS[name])
    before = family.flat.clone()
    kept, _ = subset(family, keep)
    assert kept.specs == tuple(family.specs[i] for i in sorted(keep))
    inputs = torch.randn(30, INPUTS, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(kept.forward(inputs), family.forward(inputs)[sorted(keep)], rtol=1e-5, atol=1e-6)
    for new, old in enumerate(sorted(keep)):
        for ours, theirs in zip(kept.member_layers(new), family.member_layers(old), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert torch.equal(kept.member_log_std(new), family.member_log_std(old))
    assert torch.equal(family.flat, before)


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_each_entry_comes_from_one_place_and_padding_is_zero(keep):
    family = family_of(DISTRIBUTIONS["gaussian"])
    family.flat.copy_(torch.arange(1.0, family.flat.numel() + 1))
    kept, origin = subset(family, keep)
    own = sum(spec.footprint(INPUTS, 2).params + 2 for spec in kept.specs)
    used = origin[origin >= 0]
    assert len(used) == own == len(used.unique())
    assert (kept.flat[origin < 0] == 0).all()
    assert torch.equal(carried(family.flat, origin), kept.flat)
    assert torch.equal(kept.flat[origin >= 0], used + 1.0)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("keep", KEEPS[:4], ids=str)
def test_learning_goes_on_as_without_the_others(name, keep):
    """Two rounds of all, then two of those that are left: the weights are those of a family that was never larger, up
    to rounding, since groups are padded otherwise."""
    distribution = DISTRIBUTIONS[name]
    dataset, everyone = data(distribution), learner_of(family_of(distribution))
    alone = learner_of(family_of(distribution, [everyone.family.specs[i] for i in keep]))
    alone.family.log_std.copy_(everyone.family.log_std[sorted(keep)])
    for index in range(4):
        if index == 2:
            kept, origin = subset(everyone.family, keep)
            everyone = everyone.replaced(kept, origin, carried)
        metrics = [each.fit(dataset, index, SeedKey(0, "update", index), Quiet()) for each in (everyone, alone)]
    assert everyone.family.specs == alone.family.specs
    torch.testing.assert_close(everyone.family.flat, alone.family.flat, rtol=2e-3, atol=2e-4)
    assert [m.update for m in metrics[0]] == [m.update for m in metrics[1]]
    assert metrics[0][-1].learning_rate == metrics[1][-1].learning_rate


def test_padding_stays_zero_while_learning_goes_on():
    distribution = DISTRIBUTIONS["categorical"]
    learner, dataset = learner_of(family_of(distribution)), data(distribution)
    learner.fit(dataset, 0, SeedKey(0, "update", 0), Quiet())
    kept, origin = subset(learner.family, [4, 5, 8, 11])
    learner = learner.replaced(kept, origin, carried)
    assert (origin < 0).any(), "these are padded"
    learner.fit(dataset, 1, SeedKey(0, "update", 1), Quiet())
    assert (learner.family.flat[origin < 0] == 0).all()


def test_a_learner_that_has_not_begun_can_lose_members_too():
    learner = learner_of(family_of(DISTRIBUTIONS["categorical"]))
    kept, origin = subset(learner.family, [1, 2])
    replaced = learner.replaced(kept, origin, carried)
    assert replaced.state()["step"] == 0 and not replaced.state()["exp_avg"].any()
    replaced.fit(data(DISTRIBUTIONS["categorical"]), 0, SeedKey(0, "update", 0), Quiet())
