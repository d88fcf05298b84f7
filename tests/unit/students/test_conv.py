"""Fails when a student of images computes otherwise than torch's layers, when its file, its NumPy twin or its family
disagree with it, or when its sizes are not those that were announced."""

from __future__ import annotations

import pickle  # what multiprocessing does with a student
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.preprocessing import is_image_space_channels_first
from torch import Tensor, nn

from policykd.loss.distributions import Categorical, DiagGaussian, Distribution
from policykd.spine.artifact import save_artifact
from policykd.spine.errors import InputError
from policykd.spine.packing import packing_of
from policykd.spine.spaces import action_map
from policykd.students.conv import ConvStudent, conv_means
from policykd.students.convolutions import impala, nature
from policykd.students.convolved import ConvFamily
from policykd.students.encoders import channels_last, normaliser_places, planned
from policykd.students.load import load_student
from policykd.students.normaliser import Normaliser
from policykd.students.spec import MemberSpec
from tests.support.core import FAMILIES

SPACES: dict[str, spaces.Space[Any]] = {
    "cnn, channels last": spaces.Box(0, 255, (12, 10, 3), np.uint8),
    "cnn, channels first": spaces.Box(-1, 1, (2, 9, 13), np.float32),
    "multi": spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (17, 16, 3), np.uint8),
            "gear": spaces.Discrete(4, start=-1),
            "map": spaces.Box(0, 1, (1, 7, 7), np.float32),
            "speed": spaces.Box(-5, 5, (3,), np.float64),
        }
    ),
    "multi, Tuple": spaces.Tuple([spaces.Box(0, 255, (8, 8, 1), np.uint8), spaces.MultiBinary(3)]),
}


def student(name: str = "cnn, channels last", conv: Any = "nature", family: str = "categorical") -> ConvStudent:
    distribution, actions = FAMILIES[family]
    space, rng = SPACES[name], np.random.default_rng(0)
    packing = packing_of(space)
    spec = MemberSpec(1, 6, 0, "multi" if name.startswith("multi") else "cnn", 3, conv)
    plan = planned(spec, packing, distribution.n_means, "relu" if conv == "nature" else "tanh")
    places = normaliser_places(packing)
    return ConvStudent(
        normaliser=Normaliser.measured_by_place(lambda: [packing.features(seen(name))], places),
        plan=plan,
        parts={key: torch.from_numpy(rng.normal(0, 0.4, shape).astype("f4")) for key, shape in plan.shapes.items()},
        log_std=torch.full((distribution.n_params - distribution.n_means,), -1.0),
        distribution=distribution,
        action_map=action_map(actions, unscale=family == "squashed"),
        observation_space=space,
        action_space=actions,
        provenance={"policykd": "test"},
    )


def seen(name: str, n: int = 5) -> Any:
    """Packed observations [n, *shape]."""
    space, packing = SPACES[name], packing_of(SPACES[name])
    space.seed(0)
    return np.stack([packing.pack(space.sample()) for _ in range(n)])


def test_it_computes_what_torchs_layers_do() -> None:
    """The whole of a nature student, with its normaliser, on an image with the channels last."""
    policy = student()
    layers: list[nn.Module] = []
    for (_, weight), (_, bias), c in zip(
        list(policy.parts.items())[0:6:2],
        list(policy.parts.items())[1:6:2],
        policy.plan.encoders[0].convolutions,
        strict=True,
    ):
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], c.kernel, c.stride, c.padding)
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        layers += [layer, nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten())
    images = torch.from_numpy(seen("cnn, channels last")).permute(0, 3, 1, 2).float()
    mean, scale = (torch.from_numpy(x).view(1, 3, 1, 1) for x in (policy.normaliser.mean, policy.normaliser.scale))
    assert torch.allclose(mean.flatten(), images.mean((0, 2, 3)), rtol=1e-5), "one mean a channel"
    assert torch.allclose(1 / scale.flatten(), images.transpose(0, 1).flatten(1).std(1, correction=0), rtol=1e-5)
    with torch.no_grad():
        x = network((images - mean) * scale)
        x = torch.relu(x @ policy.parts["layers.0.weight"] + policy.parts["layers.0.bias"])
        x = x @ policy.parts["layers.1.weight"] + policy.parts["layers.1.bias"]
    found = policy.distribution_params(torch.from_numpy(seen("cnn, channels last")))
    assert torch.allclose(found, x, atol=1e-4)


def test_residual_blocks_are_espeholts() -> None:
    """Stages of a convolution of stride 2 and x + conv(act(conv(act(x)))), one activation behind the last."""
    policy = student("cnn, channels first", "impala")
    own, conv, act = policy.parts, nn.functional.conv2d, torch.tanh
    flat = torch.randn(4, 2 * 9 * 13)
    x = flat.view(4, 2, 9, 13)
    for k in range(2):
        name = f"encoders.0.convolutions.{k}"
        x = conv(x, own[f"{name}.weight"], own[f"{name}.bias"], 2, 1)
        inner = conv(act(x), own[f"{name}.inner.weight"], own[f"{name}.inner.bias"], 1, 1)
        x = x + conv(act(inner), own[f"{name}.outer.weight"], own[f"{name}.outer.bias"], 1, 1)
    x = act(act(x).flatten(1) @ own["layers.0.weight"] + own["layers.0.bias"])
    expected = x @ own["layers.1.weight"] + own["layers.1.bias"]
    assert torch.allclose(conv_means(policy.plan, own, flat), expected, atol=1e-4)


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("conv", ["nature", "impala"])
def test_its_file_gives_the_same_student_and_a_twin_in_numpy(name: str, conv: str, tmp_path: Path) -> None:
    policy, path = student(name, conv), tmp_path / "student.safetensors"
    save_artifact(path, *policy.to_artifact())
    again, plain = load_student(path), load_student(path, backend="numpy")
    assert isinstance(again, ConvStudent) and again.plan == policy.plan
    assert again.kind == plain.document["architecture"]["kind"] == name.split(",", maxsplit=1)[0]
    batch = seen(name)
    params = policy.distribution_params(torch.from_numpy(batch))
    assert torch.equal(again.distribution_params(torch.from_numpy(batch)), params)
    assert np.allclose(plain.means(batch), params.numpy(), atol=1e-4)
    observation = SPACES[name].sample()
    for one in (policy, again, plain):
        action, _ = one.predict(observation, deterministic=True)
        assert np.asarray(action).shape == ()
    tensors, document = policy.to_artifact()
    size = policy.footprint
    assert (document["params"], document["macs"]) == (size.params, size.macs)
    assert size.params == sum(value.size for key, value in tensors.items() if not key.startswith("normaliser"))
    assert size.constants == tensors["normaliser.mean"].size + tensors["normaliser.scale"].size
    sent = pickle.loads(pickle.dumps(policy))
    assert torch.equal(sent.distribution_params(torch.from_numpy(batch)), params)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_kind_of_action(family: str, tmp_path: Path) -> None:
    policy, path = student("multi", family=family), tmp_path / "student.safetensors"
    save_artifact(path, *policy.to_artifact())
    plain, observation = load_student(path, backend="numpy"), SPACES["multi"].sample()
    first, second = (one.predict(observation, deterministic=True)[0] for one in (policy, plain))
    assert np.allclose(first, second, atol=1e-4)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    tensors, document = student("multi").to_artifact()
    path = tmp_path / "student.safetensors"
    for missing in ("encoders.0.convolutions.1.weight", "encoders.3.bias", "layers.1.weight", "normaliser.scale"):
        save_artifact(path, {**tensors, missing: tensors[missing][:-1]}, document)
        with pytest.raises(InputError, match=missing):
            load_student(path)
    camera = document["architecture"]["encoders"][0]
    first = camera["convolutions"][0]
    wrong: list[tuple[Any, str]] = [
        ({**first, "stride": 0}, "cannot be"),
        ({**first, "kernel": 99}, "does not fit its image"),
        ({**first, "padding": 2**30}, "cannot be"),
        ({**first, "channels": 2**31}, "does not fit its image"),
        ({**first, "residual": 1}, "cannot be"),
        ({"kernel": 3}, "KeyError"),
    ]
    for convolution, reason in wrong:
        entry = {**camera, "convolutions": [convolution, *camera["convolutions"][1:]]}
        with pytest.raises(InputError, match=reason) as caught:
            load_changed(path, tensors, document, encoders=[entry, *document["architecture"]["encoders"][1:]])
        assert "\n" not in str(caught.value)
    for entries in ([], [camera], [{**camera, "layout": "chw"}, *document["architecture"]["encoders"][1:]]):
        with pytest.raises(InputError):
            load_changed(path, tensors, document, encoders=entries)
    with pytest.raises(InputError, match="expected a cnn"):
        load_changed(path, tensors, document, kind="cnn")


def load_changed(path: Path, tensors: Any, document: Any, **changes: Any) -> None:
    save_artifact(path, tensors, {**document, "architecture": {**document["architecture"], **changes}})
    load_student(path)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 250), st.integers(1, 250), st.sampled_from([nature, impala]))
def test_every_size_of_image_ends_in_a_small_map(height: int, width: int, rule: Any) -> None:
    for c in rule(height, width, 4):
        height, width = ((n + 2 * c.padding - c.kernel) // c.stride + 1 for n in (height, width))
        assert min(height, width) >= 1
    assert max(height, width) <= 4


@pytest.mark.filterwarnings("ignore:Treating image space")
@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 3))
def test_the_layout_is_decided_as_by_sb3(shape: tuple[int, int, int]) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    assert channels_last(shape) == (not is_image_space_channels_first(space))


def test_mnihs_kernels_on_mnihs_images() -> None:
    kernels = [(c.kernel, c.stride, c.channels) for c in nature(84, 84, 16)]
    assert kernels == [(8, 4, 16), (4, 2, 32), (3, 2, 32)]
    assert [(c.kernel, c.stride) for c in nature(36, 36, 16)] == [(8, 4), (4, 2), (3, 1)]


@pytest.mark.parametrize("distribution", [Categorical(4), DiagGaussian(2)])
def test_members_are_what_they_would_be_alone(distribution: Distribution) -> None:
    packing = packing_of(SPACES["multi"])
    specs = [
        MemberSpec(1, 4, 1, "multi", 2, "nature"),
        MemberSpec(1, 4, 0, "multi", 5, "nature"),
        MemberSpec(0, 9, 0, "multi", 2, "nature"),
    ]
    family = ConvFamily(specs, packing, distribution, root_seed=3)
    inputs = torch.randn(6, packing.n_features)
    slope = torch.randn(len(specs), 6, distribution.n_params)
    norms, singles = gradient(family, inputs, slope), []
    for index, spec in enumerate(sorted(specs)):
        lonely = ConvFamily([spec], packing, distribution, root_seed=3)
        for key, part in lonely.parts(0).items():
            assert torch.equal(part, family.parts(index)[key])
        singles.append(gradient(lonely, inputs, slope[index : index + 1]))
        for key, part in lonely.parts(0, lonely.grad).items():
            assert torch.allclose(part, family.parts(index, family.grad)[key], atol=1e-5), key
        size = sum(part.numel() for part in lonely.parts(0).values())
        assert size == spec.footprint(packing, distribution.n_means).params == family.footprint(index).params
        assert torch.allclose(lonely.forward(inputs)[0], family.forward(inputs)[index], atol=1e-5)
    assert torch.allclose(norms, torch.cat(singles), rtol=1e-4)
    assert not torch.equal(family.parts(1)["layers.1.weight"], family.parts(2)["layers.1.weight"])
    own = torch.stack([inputs[:2], inputs[2:4], inputs[4:]])
    each = family.forward(own)
    assert torch.allclose(each[1], family.forward(inputs)[1, 2:4], atol=1e-5), "each its own inputs"
    family.scale_member_grads(torch.tensor([0.0, 1.0, 2.0]))
    assert torch.allclose(family.member_grad_norms(), norms * torch.tensor([0.0, 1.0, 2.0]), rtol=1e-4)


def gradient(family: ConvFamily, inputs: Tensor, slope: Tensor) -> Tensor:
    flat = family.flat.detach().requires_grad_()
    family.outputs(flat, inputs).backward(slope)
    assert flat.grad is not None
    family.grad.copy_(flat.grad)
    return family.member_grad_norms()


def test_multiply_accumulates_are_counted_once_for_each_place() -> None:
    """12 x 10 x 3, nature: kernels of 3, padded: 12 x 10, then 6 x 5, then (a side above 4) 3 x 3; then 6 units."""
    policy = student(family="categorical")
    places, sizes = (12 * 10, 6 * 5, 3 * 3), ((3, 3), (6, 3), (6, 6))
    macs = sum(n * 9 * i * o for n, (o, i) in zip(places, sizes, strict=True))
    outputs = policy.distribution.n_means
    assert policy.footprint.macs == macs + 3 * 3 * 6 * 6 + 6 * outputs
    weights = sum(9 * i * o + o for o, i in sizes)
    assert policy.footprint.params == weights + 54 * 6 + 6 + 6 * outputs + outputs
    assert policy.footprint.constants == 2 * 3
