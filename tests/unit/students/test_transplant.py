"""Fails when a student that starts from another one computes something else: behind another normaliser, with more
units, with inputs or actions that are new."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.loss.distributions import Categorical, DiagGaussian, MultiCategorical, SquashedDiagGaussian
from policykd.spine.packing import packing_of
from policykd.students.family import Family
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.students.spec import MemberSpec
from policykd.students.transplant import plant, plant_log_std, refitted, shared_inputs, shared_outputs
from tests.support.core import student

OTHER = Normaliser(np.array([0.5, -1.0, 3.0], np.float32), np.array([0.7, 1.5, 0.02], np.float32))


def states(old: MlpStudent, n: int = 200) -> torch.Tensor:
    """Raw observations [n, 3] that neither normaliser clips."""
    generator = torch.Generator().manual_seed(1)
    mean, scale = (torch.from_numpy(x) for x in (old.normaliser.mean, old.normaliser.scale))
    return mean + 0.8 * torch.randn(n, 3, generator=generator) / scale


@pytest.mark.parametrize(("width", "activation"), [(6, "tanh"), (9, "tanh"), (9, "relu")])
def test_a_member_computes_what_the_old_student_did(width, activation) -> None:
    old = student("gaussian", activation)  # layers of 6 and 5
    specs = [MemberSpec(2, width), MemberSpec(2, 12)]  # in one group, padded
    family = Family(specs, 3, old.distribution, activation=activation)
    before = family.flat.clone()
    plant(family, 0, refitted(old, old.packing, old.distribution, OTHER))
    plant_log_std(family, old)
    seen = states(old)
    found, expected = family.member(0)(OTHER.apply(seen)), old.distribution_params(seen)
    assert torch.allclose(found, expected, rtol=1e-4, atol=2e-5)
    kept = family.places(1)[:-1]
    assert all(torch.equal(family.flat[place], before[place]) for place in kept), "another member's weights changed"
    new = family.flat[family.places(0)[0]].view(3, width)[:, 6:]
    assert (new != 0).all(), "new units must not all be alike"


def test_what_is_new_has_no_say_and_what_is_shared_stays() -> None:
    old = student("gaussian")
    space = spaces.Box(-9, 9, (5,), np.float32)
    normaliser = Normaliser(*(np.concatenate([x, np.ones(2, np.float32)]) for x in (OTHER.mean, OTHER.scale)))
    family = Family([MemberSpec(2, 6)], 5, DiagGaussian(3))
    plant(family, 0, refitted(old, packing_of(space), family.distribution, normaliser))
    plant_log_std(family, old)
    seen = states(old)
    for more in (torch.zeros(len(seen), 2), torch.randn(len(seen), 2)):
        found = family.member(0)(normaliser.apply(torch.cat([seen, more], 1)))
        assert torch.allclose(found[:, :2], old.distribution_params(seen)[:, :2], rtol=1e-4, atol=2e-5)
        assert (found[:, 2] == 0).all()
    assert torch.equal(family.member_log_std(0)[:2], old.log_std)


def test_entries_belong_together_by_their_keys() -> None:
    box, three, four = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3), spaces.Discrete(4)
    image, flat = spaces.Box(0, 1, (2, 3), np.float32), spaces.Box(0, 1, (4,), np.float32)
    old = packing_of(spaces.Dict({"a": box, "b": three, "c": three, "d": image}))
    new = packing_of(spaces.Dict({"a0": box, "b": three, "c": four, "d": flat}))
    left, right = shared_inputs(old, new)
    assert (left.tolist(), right.tolist()) == ([2, 3, 4], [2, 3, 4])  # b alone: c has other choices, d another shape
    assert [len(x) for x in shared_inputs(packing_of(box), packing_of(three))] == [0, 0]


def test_outputs_belong_together_by_choice() -> None:
    left, right = shared_outputs(MultiCategorical((2, 3)), MultiCategorical((3, 2)))
    assert (left.tolist(), right.tolist()) == ([0, 1, 2, 3], [0, 1, 3, 4])
    assert shared_outputs(Categorical(2), Categorical(4))[1].tolist() == [0, 1]
    assert not len(shared_outputs(DiagGaussian(2), SquashedDiagGaussian(2))[0])
