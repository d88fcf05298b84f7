"""Fails when an ensemble is not what its teachers say together, or takes teachers that cannot be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3

from policykd.loss.combining import mixture, product
from policykd.loss.distributions import Categorical, DiagGaussian, SquashedDiagGaussian
from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.custom import make_custom_teacher
from policykd.teachers.ensemble import EnsembleTeacher, ensemble_of, teachers_of
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import Normalizer
from tests.support.teachers import Spaces, box

SMALL = {"net_arch": [8]}
SEEN = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
ACTIONS = {"choice": spaces.Discrete(3), "box": spaces.Box(np.float32([-2, -1]), np.float32([2, 3]))}


def teacher(algo: Any, actions: str, seed: int = 0, **info: Any) -> Teacher:
    env = Spaces(box(4), ACTIONS[actions])
    policy = "MlpLstmPolicy" if algo is RecurrentPPO else "MlpPolicy"
    more = {} if algo in (PPO, RecurrentPPO) else {"buffer_size": 10}
    model = algo(policy, env, seed=seed, device="cpu", policy_kwargs=dict(SMALL), **more)
    return load_teacher(model).with_info(**{"env_id": "Some-v0", "source": algo.__name__.lower(), **info})


def actions_of(one: Teacher, observation: torch.Tensor = SEEN) -> np.ndarray:
    """In the environment's units."""
    return one.predict(observation.numpy(), deterministic=True)[0]


@pytest.mark.parametrize(("how", "pool"), [("mixture", mixture), ("product", product)])
def test_each_sees_raw_observations_and_weights_are_shares(how, pool) -> None:
    plain, other = teacher(PPO, "choice"), teacher(PPO, "choice", seed=1)
    normalised = Teacher(
        other.network,
        other._interface,
        other.info,
        Normalizer(np.full(4, 2.0), np.full(4, 9.0)),
    )
    both = ensemble_of([plain, normalised], how, [1.0, 3.0])
    each = torch.stack([plain.distribution_params(SEEN), normalised.distribution_params(SEEN)])
    expected = pool(Categorical(3), each, torch.tensor([0.25, 0.75]))
    assert torch.equal(both.distribution_params(SEEN), expected)
    assert not torch.allclose(plain.distribution_params(SEEN), expected, atol=1e-3)


def test_q_values_are_logits_at_a_temperature_each() -> None:
    policy, dqn, qrdqn = teacher(PPO, "choice"), teacher(DQN, "choice"), teacher(QRDQN, "choice")
    both = ensemble_of([policy, dqn], "product", [1, 1]).weighed([1, 1], [7.0, 4.0])
    expected = 0.5 * policy.distribution_params(SEEN).log_softmax(-1)
    expected = expected + 0.5 * (4.0 * dqn.distribution_params(SEEN)).log_softmax(-1)
    assert torch.allclose(both.distribution_params(SEEN), expected)
    assert (both.value_teacher, both.deterministic_teacher, both.info.algo) == (False, False, "ppo+dqn")
    values = ensemble_of([dqn, qrdqn], "mixture", [1, 1])
    assert values.value_teacher, "nobody has a distribution of its own: they act by the mode"
    with pytest.raises(InputError, match="a scale each"):
        values.with_logit_scale(2.0)


def test_deterministic_and_squashed_teachers_come_to_one_layout() -> None:
    ppo, sac, td3 = (teacher(algo, "box") for algo in (PPO, SAC, TD3))
    for alone in (ppo, sac, td3):  # beside another, whose weight is 0, each acts as it does alone
        for beside in (ppo, sac, td3):
            both = ensemble_of([alone, beside], "product", [1.0, 0.0])
            assert np.allclose(actions_of(both), actions_of(alone), atol=1e-5), (alone.info.algo, beside.info.algo)
    assert ensemble_of([sac, sac], "mixture", [1, 1]).distribution == SquashedDiagGaussian(2)
    assert ensemble_of([td3, td3], "mixture", [1, 1]).deterministic_teacher
    three = ensemble_of([ppo, sac, td3], "mixture", [1, 1, 1])
    assert (three.distribution, three.action_map.kind) == (DiagGaussian(2), "unscale")
    ours = ppo.distribution_params(SEEN)
    unit = ensemble_of([ppo, td3], "product", [1.0, 0.0]).distribution_params(SEEN)
    # the space is [-2, 2] x [-1, 3]
    assert torch.allclose(unit[:, :2] * 2 + torch.tensor([0.0, 1.0]), ours[:, :2], atol=1e-5)
    assert torch.allclose(unit[:, 2:] + np.log(2), ours[:, 2:], atol=1e-5)


def test_in_each_state_the_teacher_that_expects_most_speaks() -> None:
    one, other = teacher(PPO, "choice"), teacher(DQN, "choice", seed=1)
    both = ensemble_of([one, other], "value", [1, 1])
    first = one.value(SEEN) >= other.value(SEEN)
    assert 0 < int(first.sum()) < len(SEEN)
    expected = torch.where(first.unsqueeze(-1), one.distribution_params(SEEN), other.distribution_params(SEEN))
    assert torch.equal(both.distribution_params(SEEN), expected)
    assert torch.equal(both.value(SEEN), torch.maximum(one.value(SEEN), other.value(SEEN)))
    mixed = ensemble_of([one, other], "mixture", [1, 3])
    assert torch.allclose(mixed.value(SEEN), 0.25 * one.value(SEEN) + 0.75 * other.value(SEEN))
    blind = make_custom_teacher(lambda x: x[:, :3], box(4), spaces.Discrete(3), env_id="Some-v0", name="blind")
    with pytest.raises(InputError, match="blind: ensemble.how value asks the teacher's critic, and it holds none"):
        ensemble_of([one, blind], "value", [1, 1])


def test_what_is_known_of_all() -> None:
    ppo, dqn = teacher(PPO, "choice"), teacher(DQN, "choice")
    both, turned = ensemble_of([ppo, dqn], "mixture", [1, 1]), ensemble_of([dqn, ppo], "mixture", [1, 1])
    assert both.info.source == "ppo + dqn"
    assert both.info.footprint.params == ppo.info.footprint.params + dqn.info.footprint.params
    assert len(both.info.sha256) == 64
    assert both.info.sha256 not in (ppo.info.sha256, turned.info.sha256)
    assert both.fingerprint != ensemble_of([ppo, dqn], "product", [1, 1]).fingerprint
    assert both.fingerprint != ensemble_of([ppo, dqn], "mixture", [1, 2]).fingerprint
    assert teachers_of(both) == (ppo, dqn)
    assert teachers_of(ppo) == (ppo,)
    moved = both.to("cpu").with_info(env_id="Other-v0")
    assert isinstance(moved, EnsembleTeacher)
    assert torch.equal(moved.distribution_params(SEEN), both.distribution_params(SEEN))


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (lambda: teacher(PPO, "box"), "action spaces are"),
        (lambda: teacher(PPO, "choice", env_id="Other-v0"), "trained in Some-v0 and Other-v0"),
        (lambda: teacher(PPO, "choice", wrappers=(("Foo", {}),)), "different wrappers"),
        (lambda: teacher(RecurrentPPO, "choice"), "has a memory"),
    ],
)
def test_teachers_that_cannot_be_one(others, reason) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        ensemble_of([teacher(PPO, "choice"), others()], "mixture", [1, 1])
    assert "\n" not in str(caught.value)
