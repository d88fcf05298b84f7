"""A teacher computes what stable-baselines3 computes, to the last bit, from the zip and from the live model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from policykd.loss.acting import as_batch
from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from tests.support.comparing import same_distribution, trapped
from tests.support.matrix import CASES, make_model, trained
from tests.support.teachers import N_OBSERVATIONS, Spaces, box, observations


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["file", "live"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Teacher]:
    def from_file(model: Any) -> Teacher:
        model.save(tmp_path / "model.zip")
        with trapped():
            return load_teacher(tmp_path / "model.zip")

    return from_file if request.param == "file" else from_model


def test_acts_as_the_model_does(case: str, load: Callable[[Any], Teacher]) -> None:
    model = trained(case)
    teacher = load(model)
    batch = observations(model.observation_space)

    expected, _ = model.predict(batch, deterministic=True)
    actions, _ = teacher.predict(batch, deterministic=True)
    np.testing.assert_array_equal(actions, expected)
    assert actions.dtype == expected.dtype or case == "ppo-multibinary"  # SB3 gives floats there
    assert teacher.info.algo == CASES[case][4]

    first = {key: value[0] for key, value in batch.items()} if isinstance(batch, dict) else batch[0]
    single, _ = model.predict(first, deterministic=True)
    action, state = teacher.predict(first, deterministic=True)
    assert state is None
    assert action.shape == single.shape
    np.testing.assert_array_equal(action, single)


def test_has_the_distribution_of_the_model(case: str, load: Callable[[Any], Teacher]) -> None:
    model = trained(case)
    teacher = load(model)
    batch = observations(model.observation_space)
    params = teacher.distribution_params(torch.from_numpy(as_batch(batch, teacher.packing)[0]))
    assert params.dtype == torch.float32
    assert params.shape == (N_OBSERVATIONS, teacher.distribution.n_params)
    assert not params.requires_grad
    with torch.no_grad():
        tensors, _ = model.policy.obs_to_tensor(batch)
        same_distribution(teacher, params, model.policy, tensors)


def test_file_and_live_model_give_one_fingerprint(case: str, tmp_path: Path) -> None:
    model = trained(case)
    model.save(tmp_path / "model.zip")
    assert load_teacher(tmp_path / "model.zip").fingerprint == from_model(model).fingerprint


def test_live_teacher_keeps_its_weights_while_the_model_changes() -> None:
    model = make_model("ppo-discrete")
    teacher = from_model(model)
    before = teacher.fingerprint
    for parameter in model.policy.parameters():
        parameter.data.add_(1.0)
    assert teacher.fingerprint == before != from_model(model).fingerprint


def test_actions_that_do_not_start_at_zero_are_sent_as_the_model_sends_them() -> None:
    model = PPO("MlpPolicy", Spaces(box(4), spaces.Discrete(3, start=5)), device="cpu")
    teacher, batch = from_model(model), observations(model.observation_space)
    np.testing.assert_array_equal(
        teacher.predict(batch, deterministic=True)[0], model.predict(batch, deterministic=True)[0]
    )
    assert "start at [5]" in teacher.info.notes[0]


def test_images_with_their_channels_last_are_turned_as_the_model_turns_them() -> None:
    env = Spaces(spaces.Box(0, 255, (36, 40, 3), np.uint8), spaces.Discrete(3))
    model = PPO("CnnPolicy", env, device="cpu", seed=1)
    teacher = from_model(model)
    assert teacher.observation_space.shape == (3, 36, 40)
    turned = teacher.fitted(env.observation_space)
    assert turned.fitted(env.observation_space) is turned
    batch = observations(env.observation_space, 32)
    expected, _ = model.predict(batch, deterministic=True)
    np.testing.assert_array_equal(turned.predict(batch, deterministic=True)[0], expected)
    with torch.no_grad():
        theirs = model.policy.get_distribution(model.policy.obs_to_tensor(batch)[0]).distribution.logits
    params = turned.distribution_params(torch.from_numpy(batch))
    assert torch.allclose(torch.log_softmax(params, 1), theirs, atol=1e-6)


def test_footprint_counts_the_way_to_the_action() -> None:
    teacher = from_model(make_model("ppo-elu"))
    assert teacher.info.layers == ((4, 5), (5, 7), (7, 3))
    assert teacher.info.footprint.params == 4 * 5 + 5 + 5 * 7 + 7 + 7 * 3 + 3
    assert teacher.info.footprint.macs == 4 * 5 + 5 * 7 + 7 * 3
    assert teacher.info.footprint.constants == 0
    assert teacher.info.activation == "elu"


def test_shared_layers_of_old_zips_come_first(tmp_path: Path) -> None:
    """SB3 before 1.8 had layers that policy and value shared."""
    from dataclasses import replace

    from policykd.teachers.build import build_network
    from policykd.teachers.sb3zip import read_zip

    make_model("ppo-elu").save(tmp_path / "model.zip")
    spec, _ = read_zip(tmp_path / "model.zip")
    weights = {key.replace("policy_net.0.", "shared_net.0.").replace("policy_net.2.", "policy_net.0."): value
               for key, value in spec.weights.items()}  # fmt: skip
    batch = torch.from_numpy(observations(spec.observation_space))
    assert torch.equal(build_network(spec)([batch]), build_network(replace(spec, weights=weights))([batch]))


def test_logit_scale_multiplies_q_values_and_changes_nothing_in_place() -> None:
    teacher = from_model(make_model("dqn"))
    batch = torch.from_numpy(observations(teacher.observation_space))
    scaled = teacher.with_logit_scale(4.0)
    assert teacher.value_teacher
    assert torch.equal(scaled.distribution_params(batch), teacher.distribution_params(batch) * 4.0)
    assert (teacher.logit_scale, scaled.logit_scale) == (1.0, 4.0)
    assert scaled.fingerprint == teacher.fingerprint
    with pytest.raises(InputError, match="positive number"):
        teacher.with_logit_scale(0.0)
    with pytest.raises(InputError, match="distribution of its own"):
        from_model(make_model("sac")).with_logit_scale(2.0)


@pytest.mark.cuda
def test_moves_to_the_gpu(case: str) -> None:
    teacher = from_model(make_model(case))
    batch = torch.from_numpy(as_batch(observations(teacher.observation_space), teacher.packing)[0])
    there = teacher.to("cuda")
    assert there.device.type == "cuda"
    params = there.distribution_params(batch.cuda())
    assert torch.allclose(params.cpu(), teacher.distribution_params(batch), atol=1e-3)
    assert there.predict(observations(teacher.observation_space), deterministic=False)[0].shape[0] == len(batch)
