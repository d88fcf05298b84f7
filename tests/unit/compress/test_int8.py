"""Fails when weights are not whole numbers of 8 bits, when the file forgets them, when a file that lies about them is
opened, or when the optimizer loses what rounding hides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from policykd.compress.int8 import quantise_, quantised, rounded, scale_of
from policykd.learn.updates.update import Learner
from policykd.spine.artifact import load_artifact, save_artifact
from policykd.spine.config.data import UpdateConfig
from policykd.spine.errors import InputError
from policykd.spine.seeding import SeedKey
from policykd.students.family import Family
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent
from tests.support.core import Quiet, student
from tests.unit.learn.test_update import PLAIN, SPECS, Categorical, data, fit

CONFIG = UpdateConfig(n_updates=30, batch_size=32)


def whole(weight: torch.Tensor) -> bool:
    """Whether a layer's weights are whole numbers of 8 bits, each unit's times one scale."""
    steps = weight / scale_of(weight).unsqueeze(-2)
    return bool((steps - steps.round()).abs().max() < 1e-3)


def test_weights_are_whole_numbers_near_what_they_were() -> None:
    old = student("gaussian")
    new = quantised(old)
    for (weight, bias), (now, same), scale in zip(old.layers, new.layers, new.scales, strict=True):
        steps = now / scale
        assert torch.allclose(steps, steps.round(), atol=1e-4) and steps.abs().max() <= 127.01
        assert ((now - weight).abs() <= scale / 2 * 1.0001).all()
        assert torch.equal(bias, same)
    zero = torch.zeros(3, 2)
    assert torch.equal(rounded(zero, scale_of(zero)), zero)


def test_corrected_biases_take_what_rounding_changes_on_average() -> None:
    old = student("gaussian", hidden=(16, 16))
    seen = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + 1.0
    raw = old.normaliser.mean + seen.numpy() / old.normaliser.scale
    exact = old.distribution_params(torch.from_numpy(raw)).mean(0)
    off = [quantised(old, x).distribution_params(torch.from_numpy(raw)).mean(0) - exact for x in (None, seen)]
    assert off[1][:2].abs().max() < 1e-5 < off[0][:2].abs().max()


def test_the_file_holds_whole_numbers_and_acts_alike(tmp_path: Path) -> None:
    own = quantised(student("categorical"))
    save_artifact(tmp_path / "s.safetensors", *own.to_artifact())
    tensors, document = load_artifact(tmp_path / "s.safetensors")
    assert {name: value.dtype.name for name, value in tensors.items() if name.startswith("layers.0")} == {
        "layers.0.weight": "int8", "layers.0.scale": "float32", "layers.0.bias": "float32"
    }  # fmt: skip
    assert document["architecture"]["weights"] == "int8"
    again = load_student(tmp_path / "s.safetensors")
    assert isinstance(again, MlpStudent)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(own.layers, again.layers, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(own.scales, again.scales, strict=True))
    seen = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    plain = load_student(tmp_path / "s.safetensors", backend="numpy")
    expected = again.distribution_params(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(plain.means(seen), expected, rtol=1e-5, atol=1e-5)
    save_artifact(tmp_path / "t.safetensors", *again.to_artifact())
    assert (tmp_path / "t.safetensors").read_bytes() == (tmp_path / "s.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t, d: t.update({"layers.0.weight": t["layers.0.weight"].astype("f4")}), "is float32, its header says"),
        (lambda t, d: t.update({"layers.0.bias": t["layers.0.bias"].astype("i1")}), "is int8, its header says float32"),
        (lambda t, d: t.pop("layers.1.scale"), "has shape nothing, its header says"),
        (lambda t, d: d["architecture"].update(weights="int4"), "is not known to this version"),
        (lambda t, d: d["architecture"].pop("weights"), "its header says nothing"),
        (lambda t, d: t["layers.0.scale"].fill(-1.0), "layers.0.scale: expected positive numbers"),
        (lambda t, d: t["layers.0.scale"].fill(1e38), "layers.0.scale: expected positive numbers"),
    ],
)
def test_a_file_that_lies_is_refused(change, line, tmp_path: Path) -> None:
    tensors, document = quantised(student("gaussian")).to_artifact()
    document = json.loads(json.dumps(document))
    change(tensors, document)
    save_artifact(tmp_path / "s.safetensors", tensors, document)
    with pytest.raises(InputError, match=re.escape(line)):
        load_student(tmp_path / "s.safetensors")


def aware(rounds: int = 2) -> Learner:
    return Learner(Family(SPECS, 3, Categorical(4)), PLAIN, CONFIG, rounds, int8=True)


def test_the_family_learns_on_rounded_weights_while_the_optimizer_keeps_its_own() -> None:
    target, dataset = aware(), data()
    metrics = fit(target, dataset)
    assert metrics[-1].loss[2] < 0.7 * metrics[0].loss[2]
    for group in target.family.groups:
        assert all(whole(weight) for weight in group.weights)
    own = target.state()["flat"]
    assert not torch.equal(own, target.family.flat)
    target.family.flat.copy_(own)
    assert not all(whole(weight) for group in target.family.groups for weight in group.weights)
    quantise_(target.family)


def test_an_aware_learner_goes_on_bit_for_bit() -> None:
    first, dataset = aware(), data()
    fit(first, dataset)
    state = {name: value.clone() for name, value in first.state().items()}
    fit(first, dataset, 1)
    second = aware()
    second.load_state(state)
    fit(second, dataset, 1)
    assert torch.equal(first.family.flat, second.family.flat)
    assert torch.equal(first.state()["flat"], second.state()["flat"])


def test_adopted_weights_are_those_that_the_optimizer_moves() -> None:
    target = aware()
    target.family.flat.fill_(0.5)
    target.adopt()
    assert (target.state()["flat"] == 0.5).all()
    target.fit(data(), 0, SeedKey(0, "update", 0), Quiet())
    assert (target.state()["flat"] != 0.5).any()
