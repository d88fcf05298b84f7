"""A teacher's values, hidden activations and maps are those of the model's own networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from torch import nn

from policykd.loss.acting import as_batch
from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from tests.support.comparing import sb3_values, trapped
from tests.support.matrix import CASES, trained
from tests.support.teachers import Spaces, box, observations

CRITICS = [case for case in CASES if not case.startswith("ars")]


def packed(teacher: Teacher, batch: Any) -> torch.Tensor:
    return torch.from_numpy(as_batch(batch, teacher.packing)[0])


@pytest.mark.parametrize("case", CRITICS)
def test_values_are_those_of_the_model(case: str, tmp_path: Path) -> None:
    model, algo = trained(case), CASES[case][4]
    model.save(tmp_path / "model.zip")
    with trapped():
        teacher = load_teacher(tmp_path / "model.zip")
    batch = observations(model.observation_space, 32)
    values = teacher.value(packed(teacher, batch))
    with torch.no_grad():
        expected = sb3_values(model.policy, algo, model.policy.obs_to_tensor(batch)[0])
    assert teacher.valued
    assert values.shape == (32,) and values.dtype == torch.float32 and not values.requires_grad
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert values.std() > 1e-3 or case == "ppo-bits"  # no constant


def test_values_of_a_live_model_on_normalised_observations(normalised: Any) -> None:
    teacher = from_model(normalised)
    batch = observations(normalised.observation_space, 32)
    seen = torch.from_numpy(normalised.get_vec_normalize_env().normalize_obs(batch))
    with torch.no_grad():
        expected = normalised.policy.predict_values(seen)[:, 0]
    np.testing.assert_allclose(teacher.value(torch.from_numpy(batch)), expected, rtol=1e-5, atol=1e-6)
    moved = teacher.to("cpu").with_info(env_id=None)
    assert torch.equal(moved.value(torch.from_numpy(batch)), teacher.value(torch.from_numpy(batch)))


def test_values_of_a_q_teacher_have_no_logit_scale() -> None:
    teacher = from_model(trained("dqn"))
    batch = torch.from_numpy(observations(teacher.observation_space, 8))
    assert torch.equal(teacher.with_logit_scale(3.0).value(batch), teacher.value(batch))


@pytest.mark.parametrize("case", ["ars-linear", "ars-discrete"])
def test_no_critic_is_said_in_one_line(case: str) -> None:
    teacher = from_model(trained(case))
    assert not teacher.valued
    with pytest.raises(InputError, match="holds no critic whose values could be read"):
        teacher.value(torch.zeros(1, 4))


def test_a_memory_has_neither() -> None:
    env = Spaces(box(4), trained("ppo-discrete").action_space)
    teacher = from_model(RecurrentPPO("MlpLstmPolicy", env, device="cpu", policy_kwargs={"lstm_hidden_size": 4}))
    with pytest.raises(InputError, match="holds no critic"):
        teacher.value(torch.zeros(1, 4))
    with pytest.raises(InputError, match="hidden layers cannot be seen"):
        teacher.features(torch.zeros(1, 4))
    with pytest.raises(InputError, match="its convolutions cannot be seen.*or leave attention out"):
        teacher.maps(torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("case", "place", "path"),
    [
        ("ppo-image", "features_extractor.cnn", ()),
        ("td3-image", "actor.features_extractor.cnn", ()),
        ("a2c-dict", "features_extractor.extractors.camera.cnn", ("camera",)),
    ],
)
def test_maps_are_the_activations_of_the_convolutions(case: str, place: str, path: tuple[str, ...]) -> None:
    model, seen = trained(case), list[torch.Tensor]()
    teacher, batch = from_model(model), observations(model.observation_space, 8)
    layers = [layer for layer in model.policy.get_submodule(place) if isinstance(layer, nn.ReLU)]
    handles = [layer.register_forward_hook(lambda module, inputs, output: seen.append(output)) for layer in layers]
    with torch.no_grad():
        model.policy._predict(model.policy.obs_to_tensor(batch)[0], deterministic=True)
    for handle in handles:
        handle.remove()
    found = teacher.maps(packed(teacher, batch))
    assert list(found) == [path] and [maps.shape[1] for maps in found[path]] == [32, 64, 64]
    for ours, theirs in zip(found[path], seen, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["ppo-elu", "ppo-image", "tqc", "crossq", "qrdqn", "ars-linear"])
def test_features_are_the_activations_of_the_model(case: str) -> None:
    model = trained(case)
    teacher = from_model(model)
    batch = observations(model.observation_space, 16)
    policy, seen = model.policy, []
    bodies = {"ppo": "mlp_extractor.policy_net", "tqc": "actor.latent_pi", "crossq": "actor.latent_pi"}
    body = policy.get_submodule(bodies[CASES[case][4]]) if CASES[case][4] in bodies else None
    if case == "qrdqn":
        body = nn.Sequential(*policy.quantile_net.quantile_net[:-1])
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        for layer in body or []
        if not list(layer.parameters())
    ]
    with torch.no_grad():
        policy._predict(policy.obs_to_tensor(batch)[0], deterministic=True)
    for handle in handles:
        handle.remove()
    found = teacher.features(packed(teacher, batch))
    assert len(found) == len(seen) == len(teacher.info.layers) - 1
    for ours, theirs in zip(found, seen, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_critic_that_does_not_fit_is_found_when_it_is_asked(tmp_path: Path) -> None:
    from dataclasses import replace

    from policykd.teachers.critics import StateValue

    teacher = from_model(trained("ppo-discrete"))
    critic = teacher.network.critic
    assert isinstance(critic, StateValue)
    weights = {**critic.spec.weights, "value_net.weight": np.zeros((1, 3), np.float32)}
    broken = StateValue(replace(critic.spec, weights=weights))
    with pytest.raises(InputError, match="a layer of a critic takes 3 inputs, but is given 64"):
        broken([torch.zeros(1, 4)], torch.zeros(1, 3))
