"""Fails when a row of one task pulls at another task's head, or is judged otherwise than alone."""

from __future__ import annotations

import torch

from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.loss.heads import HeadLoss, Heads
from policykd.loss.losses import Loss

HEADS = Heads((Categorical(3), DiagGaussian(2), DiagGaussian(1)))


def test_a_row_is_judged_by_its_own_head_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 8, HEADS.n_params, generator=generator)
    labels = torch.randn(8, 1 + 4, generator=generator)
    labels[:, 0] = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1])
    for kind in ("forward_kl", "reverse_kl"):
        joint, alone = HeadLoss(heads=HEADS, own=Loss(kind)), Loss(kind)
        loss, gradient = joint.with_gradient(Categorical(1), labels, student)
        assert torch.allclose(loss, joint(Categorical(1), labels, student))
        for row in range(8):
            task = int(labels[row, 0])
            columns = HEADS.columns(task)
            own = alone.with_gradient(HEADS.parts[task], labels[row, 1:], student[:, row, columns])
            assert torch.allclose(loss[:, row], own[0])
            assert torch.allclose(gradient[:, row, columns], own[1])
            others = [c for c in range(HEADS.n_params) if c not in columns.tolist()]
            assert not gradient[:, row, others].any()
    assert not HeadLoss(heads=HEADS).plain, "the losses in NumPy know no heads"


def test_columns_are_means_then_spreads() -> None:
    assert (HEADS.n_means, HEADS.n_params) == (6, 9)
    assert [HEADS.columns(task).tolist() for task in range(3)] == [[0, 1, 2], [3, 4, 6, 7], [5, 8]]
