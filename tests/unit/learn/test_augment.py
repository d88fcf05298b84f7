"""Fails when an augmented state is not the visited one but for noise or shift, or keeps a label that is not its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.learn.updates.augment import Augment, refuse_augment
from policykd.spine.config.augment import AugmentConfig
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError
from policykd.spine.packing import packing_of
from policykd.students.normaliser import Normaliser
from policykd.teachers.load import load_teacher

MIXED = spaces.Dict(
    {
        "a": spaces.Box(-np.inf, np.inf, (2,), np.float32),
        "b": spaces.Discrete(3),
        "c": spaces.Box(0, 255, (6, 5, 3), np.uint8),
        "d": spaces.MultiBinary(2),
    }
)
TEACHER = load_teacher("builtin:cartpole")


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_only_numbers_are_jittered_by_so_much() -> None:
    augment = Augment(AugmentConfig(jitter=0.5), packing_of(MIXED), TEACHER)
    inputs, labels = torch.zeros(4, 500, 2 + 3 + 90 + 2), torch.ones(4, 500, 2)
    seen, same = augment(inputs, labels, rng())
    assert same is labels and (seen[..., 2:] == 0).all()
    assert float(seen[..., :2].std()) == pytest.approx(0.5, rel=0.05) and float(seen.mean()) == pytest.approx(
        0, abs=0.01
    )


def test_images_are_moved_with_their_border_repeated() -> None:
    augment = Augment(AugmentConfig(shift=2), packing_of(MIXED), TEACHER)
    inputs = torch.rand(40, 97)
    seen, _ = augment(inputs, torch.ones(40, 2), rng())
    rest = [0, 1, 2, 3, 4, 95, 96]
    assert torch.equal(seen[:, rest], inputs[:, rest])
    moved = set[tuple[int, int]]()
    for before, after in zip(inputs[:, 5:95].view(-1, 6, 5, 3), seen[:, 5:95].view(-1, 6, 5, 3), strict=True):
        padded = np.pad(before.numpy(), ((2, 2), (2, 2), (0, 0)), mode="edge")
        fits = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 6, x : x + 5], after)]
        assert len(fits) == 1
        moved.add(fits[0])
    assert len(moved) > 10


def test_on_both_the_teacher_labels_what_the_student_sees() -> None:
    augment = Augment(AugmentConfig(jitter=0.3, seen_by="both"), TEACHER.packing, TEACHER)
    raw = torch.randn(2, 50, 4) * torch.tensor([2.0, 1.0, 0.1, 3.0])
    augment.normaliser = Normaliser.measured(raw.reshape(-1, 4).numpy())
    inputs, labels = augment.normaliser.apply(raw), TEACHER.distribution_params(raw.reshape(-1, 4)).view(2, 50, 2)
    seen, relabelled = augment(inputs, torch.cat([labels, labels[..., :1]], -1), rng())
    now = augment.normaliser.undone(seen.reshape(-1, 4))
    torch.testing.assert_close(relabelled[..., :2].reshape(-1, 2), TEACHER.distribution_params(now))
    assert torch.equal(relabelled[..., 2], labels[..., 0]), "what stands beside the parameters stays"
    assert not torch.allclose(relabelled[..., :2], labels)


@pytest.mark.parametrize(
    ("config", "kind", "says"),
    [
        (AugmentConfig(shift=1), "mlp", "use augment.jitter"),
        (AugmentConfig(jitter=1.0, seen_by="both"), "multi", r"use augment\.seen_by=student"),
    ],
)
def test_what_cannot_be_augmented_is_refused(config, kind, says) -> None:
    with pytest.raises(InputError, match=says):
        refuse_augment(config, kind, packing_of(MIXED), plain_teacher=True)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["augment.seen_by=both"], "no effect without jitter"),
        (["augment.seen_by=both", "augment.jitter=1", "augment.shift=1"], "not labelled anew"),
        (["augment.jitter=1", "student.kind=gru"], "a gru remembers"),
    ],
)
def test_settings_without_sense_are_refused(overrides, says) -> None:
    with pytest.raises(InputError, match=says):
        load_config(None, overrides)
