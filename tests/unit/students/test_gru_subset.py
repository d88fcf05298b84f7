"""GRUs that are left learn on as if the dropped ones had never been there, and each learns beside the others as alone.
Red when a weight, a spread or what Adam knows of it lands in the wrong place, or a gradient reaches another member."""

from __future__ import annotations

import pytest
import torch

from policykd.data.sequences import SequenceDataset
from policykd.learn.updates.update import Learner
from policykd.loss.distributions import Categorical, DiagGaussian, Distribution
from policykd.loss.losses import Loss
from policykd.spine.config.data import UpdateConfig
from policykd.spine.seeding import SeedKey
from policykd.students.recurrent import Episodes, GruFamily, plan_sides
from policykd.students.spec import MemberSpec
from policykd.students.subset import carried, subset
from tests.support.core import Quiet

INPUTS = 3
SPECS = [MemberSpec(1, width, seed, "gru") for width, seed in ((1, 0), (1, 1), (2, 0), (5, 0), (9, 0), (5, 2))]
KEEPS = [[0], [5], [1, 3], [4, 2], list(range(len(SPECS)))]
DISTRIBUTIONS: dict[str, Distribution] = {"categorical": Categorical(4), "gaussian": DiagGaussian(2)}
START = torch.arange(300) % 60 == 0


def family_of(distribution: Distribution, specs: list[MemberSpec] = SPECS) -> GruFamily:
    family = GruFamily(specs, INPUTS, distribution, root_seed=3)
    family.log_std.uniform_(-1, 0, generator=torch.Generator().manual_seed(1))
    return family


def learner_of(family: GruFamily) -> Learner:
    return Learner(family, Loss(), UpdateConfig(n_updates=6, batch_size=64, max_grad_norm=0.5), 4)


def data(distribution: Distribution) -> SequenceDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, INPUTS, generator=generator)
    found = SequenceDataset(INPUTS, distribution.n_params, 1000, "cpu")
    labels = torch.tanh(inputs @ torch.randn(INPUTS, distribution.n_params, generator=generator))
    found.append(inputs, labels, START)
    return found


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_the_members_remember_and_do_what_they_did(keep: list[int]) -> None:
    family = family_of(DISTRIBUTIONS["gaussian"])
    before = family.flat.clone()
    kept, origin = subset(family, keep)
    assert kept.specs == tuple(family.specs[i] for i in sorted(keep))
    inputs = torch.randn(300, INPUTS, generator=torch.Generator().manual_seed(5))
    assert torch.equal(kept.along(inputs, START), family.along(inputs, START)[sorted(keep)])
    assert torch.equal(family.flat, before)
    assert len(origin.unique()) == len(origin) == kept.flat.numel() and (origin >= 0).all()
    assert torch.equal(carried(family.flat, origin), kept.flat)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("keep", KEEPS[1:4], ids=str)
def test_learning_goes_on_as_without_the_others(name: str, keep: list[int]) -> None:
    """Two rounds of all, then two of those that are left: up to rounding those of a family that was never larger."""
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
    assert metrics[0][-1].learning_rate == metrics[1][-1].learning_rate


def test_side_by_side_nobody_feels_the_others() -> None:
    family = family_of(DISTRIBUTIONS["gaussian"])
    assert len(family.groups) == 1
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(4, 7, INPUTS, generator=generator)
    before = [torch.randn(4, spec.width, generator=generator) for spec in family.specs]
    flat = family.flat.clone().requires_grad_()
    outputs = family.outputs(flat, inputs, before)
    for index in range(len(family)):
        (gradient,) = torch.autograd.grad(outputs[index].square().sum(), flat, retain_graph=True)
        own = torch.cat(family.places(index))
        others = torch.ones(len(flat), dtype=torch.bool)
        others[own] = False
        assert not gradient[others].any()
        alone, _ = subset(family, [index])
        one = alone.flat.clone().requires_grad_()
        params = alone.outputs(one, inputs, [before[index]])
        torch.testing.assert_close(outputs[index], params[0], rtol=1e-5, atol=1e-6)
        (expected,) = torch.autograd.grad(params.square().sum(), one)
        torch.testing.assert_close(gradient[own], expected[torch.cat(alone.places(0))], rtol=1e-4, atol=1e-5)


def test_large_members_are_learned_apart_and_small_ones_together() -> None:
    def sides(*widths: int) -> list[int]:
        return [s.stop - s.start for s in plan_sides([MemberSpec(1, w, 0, "gru") for w in widths], INPUTS)]

    assert sides(1, 2, 4, 8, 16, 32) == [6]
    assert sides(256, 256) == [1, 1]
    assert sides(8, 64, 300) == [2, 1]
    assert max(sides(*[32] * 12)) < 8


def test_the_row_starts_afresh_at_each_episode() -> None:
    """What a member remembers after dropping others is computed from whole episodes with its own weights."""
    family = family_of(DISTRIBUTIONS["categorical"])
    dataset = data(DISTRIBUTIONS["categorical"])
    kept, _ = subset(family, [3])
    dataset.remember(kept)
    (after,) = dataset._after
    whole = family.scan(dataset._inputs, Episodes.of(START))[3]
    assert torch.equal(after, whole)
