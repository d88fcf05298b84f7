"""Fails when a NaN goes on unnamed, when the learning rate misses its end points, when a restored learner takes another
step than the one that was saved, or when a member's clip touches its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.learn.updates.update import Learner, UpdateMetrics
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.loss.losses import Loss
from policykd.spine.config.data import UpdateConfig
from policykd.spine.errors import Interrupted, NumericsError
from policykd.spine.seeding import SeedKey
from policykd.students.family import Family
from policykd.students.spec import MemberSpec
from tests.support.core import Quiet

SPECS = [MemberSpec(1, 4), MemberSpec(2, 6), MemberSpec(2, 8)]


def data(bad_label: float | None = None) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 3, generator=generator)
    labels = 3 * torch.tanh(inputs @ torch.randn(3, 4, generator=generator))
    if bad_label is not None:
        labels[::7, 1] = bad_label
    dataset = Dataset(3, 4, 1000, "cpu")
    dataset.append(inputs, labels)
    return dataset


PLAIN = Loss()


def learner(config: UpdateConfig | None = None, loss: Any = PLAIN, rounds: int = 2, specs: Any = SPECS) -> Learner:
    return Learner(Family(specs, 3, Categorical(4)), loss, config or UpdateConfig(n_updates=30, batch_size=32), rounds)


def fit(target: Learner, dataset: Dataset, index: int = 0) -> list[UpdateMetrics]:
    return target.fit(dataset, index, SeedKey(0, "update", index), Quiet())


def test_the_loss_falls_and_every_update_is_counted() -> None:
    target, quiet = learner(UpdateConfig(n_updates=200, batch_size=64)), Quiet()
    metrics = target.fit(data(), 0, SeedKey(0, "update"), quiet)
    assert [m.update for m in metrics] == [49, 99, 149, 199] and quiet.done == 200
    assert all(last < 0.2 * first for first, last in zip(metrics[0].loss, metrics[-1].loss, strict=True))
    assert all(len(m.loss) == len(m.grad_norm) == 3 for m in metrics)
    assert fit(target, data(), 1)[0].update == 249


@pytest.mark.parametrize("n_updates", [1, 2, 3, 5, 51])
def test_few_updates(n_updates: int) -> None:
    metrics = fit(learner(UpdateConfig(n_updates=n_updates, batch_size=8)), data())
    assert metrics[-1].update == n_updates - 1


def test_learning_rate_end_points() -> None:
    config = UpdateConfig(n_updates=10, learning_rate=0.02, final_learning_rate=0.001, batch_size=8)
    target = learner(config, rounds=5)
    assert target.learning_rate(0) == 0.02 and target.learning_rate(49) == pytest.approx(0.001)
    steps = [target.learning_rate(k) for k in range(50)]
    np.testing.assert_allclose(np.diff(steps), -(0.02 - 0.001) / 49)
    used = [m.learning_rate for index in range(5) for m in fit(target, data(), index)]
    assert used[-1] == pytest.approx(0.001)
    one = learner(UpdateConfig(n_updates=1, learning_rate=0.03), rounds=1)
    before = one.family.flat.clone()
    fit(one, data())
    assert float((one.family.flat - before).abs().max()) == pytest.approx(0.03, rel=1e-3)  # Adam's first step
    assert learner(UpdateConfig(n_updates=1), rounds=1).learning_rate(0) == 1e-2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_label_that_is_no_number_stops_the_loss(value: float) -> None:
    if value == -np.inf:  # a mask: the teacher never takes this action
        assert np.isfinite(fit(learner(), data(value))[-1].loss).all()
        return
    with pytest.raises(NumericsError, match=r"^loss is not finite in update 6 of member 0") as caught:
        fit(learner(), data(value))
    assert "\n" not in str(caught.value)


def broken_gradient(member: int) -> Any:
    """A loss whose value is a number and whose gradient is none, for one member."""

    class Broken(Loss):
        def with_gradient(self, distribution: Any, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
            loss, gradient = super().with_gradient(distribution, teacher, student)
            gradient[member] = torch.nan
            return loss.nan_to_num(), gradient

    return Broken()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_no_number_is_named_with_its_member(clip: float | None) -> None:
    config = UpdateConfig(n_updates=4, batch_size=32, max_grad_norm=clip)
    with pytest.raises(NumericsError, match=r"^gradient is not finite in update 0 of member 1"):
        fit(learner(config, broken_gradient(1)), data())


def test_bounded_gradients() -> None:
    config = UpdateConfig(n_updates=8, batch_size=32, max_grad_norm=0.01)
    metrics = fit(learner(config), data())
    free = fit(learner(UpdateConfig(n_updates=8, batch_size=32)), data())
    assert min(free[0].grad_norm) > 0.02
    np.testing.assert_allclose(metrics[0].grad_norm, free[0].grad_norm, rtol=0.2)  # what is shown is before the bound
    bounded = learner(config)
    fit(bounded, data())
    np.testing.assert_allclose(bounded.family.member_grad_norms(), 0.01, rtol=1e-3)


def test_a_gradient_below_the_bound_is_left_alone() -> None:
    loose = UpdateConfig(n_updates=8, batch_size=32, max_grad_norm=1e6)
    a, b = learner(loose), learner(UpdateConfig(n_updates=8, batch_size=32))
    fit(a, data()), fit(b, data())
    assert torch.equal(a.family.flat, b.family.flat)


def test_a_saved_learner_continues_bit_for_bit() -> None:
    straight = learner()
    fit(straight, data(), 0)
    kept = {name: value.numpy().copy() for name, value in straight.state().items()}  # as a file holds it
    fit(straight, data(), 1)
    resumed = learner()
    resumed.load_state({name: torch.from_numpy(value) for name, value in kept.items()})
    assert {name: value.numpy().tolist() for name, value in resumed.state().items()} == {
        name: value.tolist() for name, value in kept.items()
    }
    fit(resumed, data(), 1)
    assert torch.equal(straight.family.flat, resumed.family.flat)
    for name, value in straight.state().items():
        assert torch.equal(value, resumed.state()[name]), name
    fresh = learner()
    fresh.family.flat.copy_(torch.from_numpy(kept["flat"]))
    fit(fresh, data(), 1)
    assert not torch.equal(straight.family.flat, fresh.family.flat), "the optimizer's moments matter"


def test_a_learner_is_saved_before_its_first_step() -> None:
    target, other = learner(), learner()
    other.family.flat.zero_()
    other.load_state({name: value.clone() for name, value in target.state().items()})
    fit(target, data()), fit(other, data())
    assert torch.equal(target.family.flat, other.family.flat)


def test_a_stop_is_obeyed_between_stretches() -> None:
    class Stopping(Quiet):
        def check(self) -> None:
            if self.done >= 100:
                raise Interrupted("stopped")

    progress = Stopping()
    with pytest.raises(Interrupted):
        learner(UpdateConfig(n_updates=1000, batch_size=8)).fit(data(), 0, SeedKey(0, "update"), progress)
    assert progress.done == 100


def test_the_spread_is_learned() -> None:
    family = Family([MemberSpec(0, 0)], 3, DiagGaussian(1))
    dataset = Dataset(3, 2, 1000, "cpu")
    dataset.append(torch.zeros(100, 3), torch.tensor([0.7, -1.2]).expand(100, 2))
    fit(Learner(family, Loss(), UpdateConfig(n_updates=600, batch_size=16), 1), dataset)
    torch.testing.assert_close(family.forward(torch.zeros(1, 3))[0, 0], torch.tensor([0.7, -1.2]), atol=0.02, rtol=0)
