"""Fails when a task's slice computes anything else than the whole does for that task, or shares of a batch differ."""

from __future__ import annotations

import pytest
import torch

from policykd.data.dataset import Dataset
from policykd.data.tasks import TaskDataset
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.loss.heads import Heads
from policykd.students.family import Family
from policykd.students.joint import Joint
from policykd.students.spec import MemberSpec

PARTS, SIZES = (Categorical(3), DiagGaussian(2)), (4, 3)
HEADS = Heads(PARTS)


def filled(task: int, n: int) -> Dataset:
    generator = torch.Generator().manual_seed(task)
    dataset = Dataset(SIZES[task], PARTS[task].n_params, 1000, "cpu")
    dataset.append(
        torch.randn(n, SIZES[task], generator=generator), torch.randn(n, PARTS[task].n_params, generator=generator)
    )
    return dataset


@pytest.mark.parametrize("specs", [[MemberSpec(2, 5)], [MemberSpec(0, 0)], [MemberSpec(1, 3), MemberSpec(1, 8)]])
def test_a_slice_computes_what_the_whole_does(specs: list[MemberSpec]) -> None:
    joint = Joint(specs, SIZES, HEADS, "tanh", 0)
    generator = torch.Generator().manual_seed(3)
    for member in range(len(specs)):  # biases and spreads as well, and no padding
        for places in joint.family.places(member):
            joint.family.flat[places] += 0.1 * torch.randn(len(places), generator=generator)
    datasets = [filled(0, 20), filled(1, 30)]
    together = TaskDataset(datasets, SIZES)
    index = together.draw(1, 9, torch.Generator().manual_seed(0))
    inputs, labels = together.take(index[0])
    whole = joint.family.forward(inputs)
    assert (labels[:, 0] == 0).sum() == 5
    for task, rows in enumerate((slice(0, 5), slice(5, 9))):
        own = Family(specs, SIZES[task], PARTS[task])
        joint.onto(task, own)
        seen, params = datasets[task].take(index[0, rows])
        assert torch.allclose(own.forward(seen), whole[:, rows][..., HEADS.columns(task)], atol=1e-5)
        assert torch.equal(labels[rows][:, 1 : 1 + params.shape[1]], params)
        assert (labels[rows, 0] == task).all()


def test_the_trunk_is_counted_once_and_spreads_start_at_each_teacher() -> None:
    joint = Joint([MemberSpec(2, 5)], SIZES, HEADS, "tanh", 0)
    assert joint.family.footprint(0).params == (4 + 3 + 2 + 1) * 5 + 6 * 5 + 6 * 5
    own = Family([MemberSpec(2, 5)], 3, PARTS[1])
    own.log_std.copy_(torch.tensor([-1.0, -2.0]))
    joint.start_log_std(1, own)
    assert joint.family.member_log_std(0).tolist() == [-1.0, -2.0]
