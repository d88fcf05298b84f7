"""Thirteen teachers of the public RL-Zoo: they load, and act as stable-baselines3's own networks do."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib.ars.policies import ARSLinearPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher
from tests.support.comparing import same_distribution, sb3_values
from tests.support.teachers import members, needs_shared, observations, shared_folder, shared_index

pytestmark = needs_shared

POLICIES: dict[str, tuple[type, dict[str, Any]]] = {
    "ppo": (ActorCriticPolicy, {}),
    "a2c": (ActorCriticPolicy, {}),
    "trpo": (ActorCriticPolicy, {}),
    "dqn": (DQNPolicy, {}),
    "qrdqn": (QRDQNPolicy, {"n_quantiles": 25}),
    "sac": (SACPolicy, {}),
    "tqc": (TQCPolicy, {}),
    "ddpg": (TD3Policy, {"n_critics": 1}),
    "ars": (ARSLinearPolicy, {}),
}


@pytest.fixture(params=shared_index(), ids=lambda record: record["folder"], scope="module")
def record(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture(scope="module")
def teacher(record: dict[str, Any]) -> Teacher:
    return load_teacher(shared_folder(record))


def test_says_what_the_index_says(teacher: Teacher, record: dict[str, Any]) -> None:
    info = teacher.info
    assert info.algo == record["algo"]
    assert (info.env_id, info.trained_on) == (record["env_id"], record["trained_on"])
    assert info.footprint.params == record["actor_params"]
    assert info.normalised == record["normalised"]
    assert info.gsde == record["gsde"]
    assert info.activation == record["activation"].lower()
    assert [outputs for _, outputs in info.layers[:-1]] == record["net_arch"]
    assert info.footprint.constants == (2 * teacher.observation_space.shape[0] if info.normalised else 0)
    mapped = [note for note in info.notes if f"is {record['env_id']} today" in note]
    assert len(mapped) == (record["env_id"] != record["trained_on"])


def test_acts_as_the_networks_of_stable_baselines3_do(teacher: Teacher, record: dict[str, Any]) -> None:
    policy = _sb3_policy(teacher, record)
    batch = observations(teacher.observation_space)
    seen = batch
    if teacher.normalizer is not None:
        n = teacher.normalizer
        seen = np.clip((batch - n.mean) / np.sqrt(n.var + n.epsilon), -n.clip, n.clip).astype(np.float32)
    expected, _ = policy.predict(seen, deterministic=True)
    actions, _ = teacher.predict(batch, deterministic=True)
    np.testing.assert_array_equal(actions, expected)
    params = teacher.distribution_params(torch.from_numpy(batch))
    tensors = torch.from_numpy(seen).float()
    with torch.no_grad():
        same_distribution(teacher, params, policy, tensors)
        if teacher.valued:
            values = sb3_values(policy, record["algo"], tensors)
            np.testing.assert_allclose(teacher.value(torch.from_numpy(batch)), values, rtol=1e-5, atol=1e-4)
    assert teacher.valued == (record["algo"] != "ars")


def test_acts_in_todays_environment(teacher: Teacher) -> None:
    import gymnasium as gym

    env = gym.make(teacher.info.env_id, **teacher.info.env_kwargs)
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        action, _ = teacher.predict(observation, deterministic=True)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    env.close()


def _sb3_policy(teacher: Teacher, record: dict[str, Any]) -> Any:
    """stable-baselines3's own policy object with the weights of the zip."""
    policy_class, kwargs = POLICIES[record["algo"]]
    if record["algo"] != "ars":
        kwargs = kwargs | {"lr_schedule": lambda _: 0.0, "activation_fn": getattr(nn, record["activation"])}
        kwargs["net_arch"] = record["net_arch"]
    if record["gsde"]:
        kwargs["use_sde"] = True
    policy = policy_class(teacher.observation_space, teacher.action_space, **kwargs)
    zips = sorted(shared_folder(record).glob("*.zip"))
    weights = torch.load(io.BytesIO(members(zips[0])["policy.pth"]), map_location="cpu", weights_only=True)
    if record["algo"] == "ars":
        weights = {"action_net.0.weight": weights["action_net.weight"]}
    policy.load_state_dict(weights)
    return policy
