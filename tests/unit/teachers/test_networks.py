"""A teacher computes what stable-baselines3 computes, to the last bit, from the zip and from the live model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from torch import nn

from policykd.loss.acting import as_batch
from policykd.loss.distributions import Bernoulli, DiagGaussian, SquashedDiagGaussian
from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from tests.support.teachers import N_OBSERVATIONS, Spaces, box, observations

CONTINUOUS = box(3, low=-2.0, high=0.5)
SPREAD = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([3.0, 0.25], np.float32))
SDE = {"use_sde": True}


IMAGE = spaces.Box(0, 255, (3, 36, 40), np.uint8)
DICT = spaces.Dict(
    {
        "zoom": box(2), "camera": spaces.Box(0, 255, (1, 36, 36), np.uint8), "mode": spaces.Discrete(4),
        "bits": spaces.MultiBinary(3), "dials": spaces.MultiDiscrete([2, 3]), "matrix": box(2, 2, dtype=np.float64),
    }
)  # fmt: skip
GOAL = spaces.Dict({"observation": box(4), "achieved_goal": box(2), "desired_goal": box(2)})  # as HER has
CNN, MULTI = {"policy": "CnnPolicy"}, {"policy": "MultiInputPolicy"}


def _kwargs(**policy_kwargs: Any) -> dict[str, Any]:
    return {"policy_kwargs": policy_kwargs}


# name: class, observation space, action space, keyword arguments, algo
CASES: dict[str, tuple[Any, spaces.Space, spaces.Space, dict[str, Any], str]] = {
    "ppo-discrete": (PPO, box(4), spaces.Discrete(3), {}, "ppo"),
    "ppo-box": (PPO, box(4), CONTINUOUS, _kwargs(log_std_init=-0.7), "ppo"),
    "ppo-float64": (PPO, box(4, dtype=np.float64), box(2, low=-1, high=1, dtype=np.float64), {}, "ppo"),
    "ppo-matrix": (PPO, box(2, 3), box(2, 2), _kwargs(net_arch=[]), "ppo"),
    "ppo-multidiscrete": (PPO, box(4), spaces.MultiDiscrete([3, 2, 4]), {}, "ppo"),
    "ppo-multibinary": (PPO, box(4), spaces.MultiBinary(5), {}, "ppo"),
    "ppo-elu": (PPO, box(4), CONTINUOUS, _kwargs(activation_fn=nn.ELU, net_arch={"pi": [5, 7], "vf": [3]}), "ppo"),
    "ppo-unshared": (PPO, box(4), CONTINUOUS, _kwargs(share_features_extractor=False, activation_fn=nn.GELU), "ppo"),
    "ppo-gsde": (PPO, box(4), CONTINUOUS, SDE, "ppo"),
    "ppo-gsde-squash": (PPO, box(4), SPREAD, SDE | _kwargs(squash_output=True, log_std_init=0.3), "ppo"),
    "ppo-gsde-expln": (PPO, box(4), CONTINUOUS, SDE | _kwargs(use_expln=True, full_std=False), "ppo"),
    "ppo-one-hot": (PPO, spaces.Discrete(6), spaces.Discrete(3), {}, "ppo"),
    "ppo-one-hots": (PPO, spaces.MultiDiscrete([3, 5]), spaces.Discrete(3), {}, "ppo"),
    "ppo-bits": (PPO, spaces.MultiBinary(5), spaces.Discrete(3), {}, "ppo"),
    "a2c-discrete": (A2C, box(4), spaces.Discrete(3), {}, "a2c"),
    "trpo-box": (TRPO, box(4), CONTINUOUS, {}, "trpo"),
    "dqn": (DQN, box(4), spaces.Discrete(3), _kwargs(net_arch=[16]), "dqn"),
    "qrdqn": (QRDQN, box(4), spaces.Discrete(3), _kwargs(n_quantiles=7), "qrdqn"),
    "sac": (SAC, box(4), SPREAD, {}, "sac"),
    "sac-gsde": (SAC, box(4), SPREAD, SDE | _kwargs(clip_mean=0.05), "sac"),
    "sac-gsde-unclipped": (SAC, box(4), SPREAD, SDE | _kwargs(clip_mean=0.0, use_expln=True), "sac"),
    "tqc": (TQC, box(4), SPREAD, _kwargs(net_arch=[8, 8], activation_fn=nn.Tanh), "tqc"),
    "tqc-gsde": (TQC, box(4), SPREAD, SDE, "tqc"),
    "td3": (TD3, box(4), SPREAD, {}, "td3"),
    "ddpg": (DDPG, box(4), SPREAD, _kwargs(net_arch=[12]), "ddpg"),
    "ars-mlp": (ARS, box(4), SPREAD, {}, "ars"),
    "ars-mlp-clip": (ARS, box(4), SPREAD, _kwargs(squash_output=False, with_bias=False), "ars"),
    "ars-linear": (ARS, box(4), SPREAD, {"policy": "LinearPolicy"}, "ars"),
    "ars-discrete": (ARS, box(4), spaces.Discrete(3), {"policy": "LinearPolicy", **_kwargs(with_bias=True)}, "ars"),
    "crossq": (CrossQ, box(4), SPREAD, _kwargs(net_arch=[8, 6]), "crossq"),
    "crossq-gsde": (CrossQ, box(4), SPREAD, SDE | _kwargs(batch_norm_eps=0.1), "crossq"),
    "crossq-plain": (CrossQ, box(4), SPREAD, _kwargs(batch_norm=False), "crossq"),
    "ppo-image": (PPO, IMAGE, spaces.Discrete(3), CNN, "ppo"),
    "ppo-image-unshared": (PPO, IMAGE, CONTINUOUS, CNN | _kwargs(share_features_extractor=False), "ppo"),
    "ppo-image-flat": (PPO, spaces.Box(0, 255, (6, 5, 3), np.uint8), spaces.Discrete(3), {}, "ppo"),
    "ppo-image-raw": (PPO, IMAGE, spaces.Discrete(3), CNN | _kwargs(normalize_images=False, net_arch=[8],
        features_extractor_kwargs={"normalized_image": True, "features_dim": 16}), "ppo"),
    "a2c-dict": (A2C, DICT, spaces.MultiDiscrete([3, 2]), MULTI, "a2c"),
    "trpo-dict": (TRPO, DICT, CONTINUOUS, MULTI | _kwargs(share_features_extractor=False), "trpo"),
    "dqn-image": (DQN, IMAGE, spaces.Discrete(3), CNN, "dqn"),
    "dqn-dict": (DQN, DICT, spaces.Discrete(3), MULTI, "dqn"),
    "qrdqn-image": (QRDQN, IMAGE, spaces.Discrete(3), CNN, "qrdqn"),
    "qrdqn-dict": (QRDQN, GOAL, spaces.Discrete(3), MULTI, "qrdqn"),
    "sac-image": (SAC, IMAGE, SPREAD, CNN, "sac"),
    "sac-dict": (SAC, GOAL, SPREAD, MULTI | _kwargs(share_features_extractor=True), "sac"),
    "tqc-dict": (TQC, GOAL, SPREAD, MULTI, "tqc"),
    "td3-image": (TD3, IMAGE, SPREAD, CNN, "td3"),
    "ddpg-dict": (DDPG, GOAL, SPREAD, MULTI, "ddpg"),
}  # fmt: skip
OFF_POLICY = (DQN, QRDQN, SAC, TQC, TD3, DDPG, CrossQ)


def make_model(case: str) -> Any:
    """An untrained model whose every weight is random: SB3 starts some at zero, which would hide mistakes."""
    algorithm, observation_space, action_space, kwargs, _ = CASES[case]
    settings = {"policy": "MlpPolicy", "seed": 1, "device": "cpu"} | kwargs
    if algorithm in OFF_POLICY:
        settings["buffer_size"] = 10
    model = algorithm(env=Spaces(observation_space, action_space), **settings)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.policy.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(noise * (0.5 if "log_std" in name else 0.2))
    return model


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["file", "live"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Teacher]:
    def from_file(model: Any) -> Teacher:
        model.save(tmp_path / "model.zip")
        return load_teacher(tmp_path / "model.zip")

    return from_file if request.param == "file" else from_model


def test_acts_as_the_model_does(case: str, load: Callable[[Any], Teacher]) -> None:
    model = make_model(case)
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
    model = make_model(case)
    teacher = load(model)
    batch = observations(model.observation_space)
    params = teacher.distribution_params(torch.from_numpy(as_batch(batch, teacher.packing)[0]))
    assert params.dtype == torch.float32
    assert params.shape == (N_OBSERVATIONS, teacher.distribution.n_params)
    assert not params.requires_grad
    with torch.no_grad():
        model.policy.set_training_mode(False)
        tensors, _ = model.policy.obs_to_tensor(batch)
        _compare(teacher, params, model, tensors)


def _compare(teacher: Teacher, params: torch.Tensor, model: Any, batch: Any) -> None:
    policy, algo = model.policy, teacher.info.algo
    if algo in ("ppo", "a2c", "trpo"):
        _compare_distribution(teacher, params, policy.get_distribution(batch))
    elif algo in ("sac", "tqc", "crossq"):
        mean, log_std, extra = policy.actor.get_action_dist_params(batch)
        _compare_distribution(teacher, params, policy.actor.action_dist.proba_distribution(mean, log_std, **extra))
    elif algo == "dqn":
        assert torch.equal(params, policy.q_net(batch))
    elif algo == "qrdqn":
        assert torch.equal(params, policy.quantile_net(batch).mean(dim=1))
    elif isinstance(teacher.distribution, DiagGaussian):
        mean = policy.actor(batch) if algo in ("td3", "ddpg") else policy.action_net(batch)
        assert torch.equal(teacher.distribution.mode(params), mean)
        half = torch.tensor([0.1, 0.1] if teacher.action_map.kind == "unscale" else [0.2, 0.0125])
        assert torch.allclose(params[:, 2:].exp(), half.expand(len(params), 2))
    else:
        assert torch.equal(params, policy.action_net(batch))


def _compare_distribution(teacher: Teacher, params: torch.Tensor, expected: Any) -> None:
    distribution, theirs = teacher.distribution, expected.distribution
    if isinstance(theirs, torch.distributions.Normal):
        dim = theirs.mean.shape[1]
        assert torch.equal(params[:, :dim], theirs.mean)
        assert torch.allclose(params[:, dim:].exp(), theirs.stddev, rtol=1e-6)
        squashed = isinstance(distribution, SquashedDiagGaussian)
        assert squashed == (teacher.action_map.kind == "unscale")
    elif isinstance(distribution, Bernoulli):
        assert torch.equal(params, theirs.logits)
    else:
        groups = theirs if isinstance(theirs, list) else [theirs]
        sizes = [group.logits.shape[1] for group in groups]
        for logits, group in zip(params.split(sizes, 1), groups, strict=True):
            assert torch.equal(logits - logits.logsumexp(-1, keepdim=True), group.logits)


def test_file_and_live_model_give_one_fingerprint(case: str, tmp_path: Path) -> None:
    model = make_model(case)
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
