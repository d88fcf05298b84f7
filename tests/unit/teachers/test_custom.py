"""Modules and functions as teachers."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from policykd import InputError, load_teacher, make_custom_teacher
from policykd.loss.distributions import Categorical, DiagGaussian, SquashedDiagGaussian
from policykd.spine.errors import NumericsError

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (4,), np.float32)
BOX = spaces.Box(np.array([-2, 0], "f4"), np.array([2, 1], "f4"))


class Agent(nn.Module):
    """An actor with a constant log_std, dropout that evaluation must turn off, and a critic that no action needs."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))
        self.log_std = nn.Parameter(torch.zeros(2))
        self.critic = nn.Linear(4, 1)

    def forward(self, x):
        mean = self.actor(x)
        self.value = self.critic(x.detach())
        return torch.cat([mean, self.log_std.expand_as(mean)], -1)


@pytest.fixture
def agent():
    torch.manual_seed(0)
    return Agent().requires_grad_(True)


def test_a_module_is_copied_frozen_and_counted(agent):
    agent.train()
    teacher = make_custom_teacher(agent, OBSERVATIONS, BOX, env_id="Own-v0", name="mine")
    before = teacher.distribution_params(torch.ones(3, 4))
    agent.eval()
    with torch.no_grad():
        torch.testing.assert_close(before, agent(torch.ones(3, 4)), rtol=0, atol=0)
        agent.actor[0].weight.mul_(2)
    assert agent.actor[0].weight.requires_grad
    torch.testing.assert_close(teacher.distribution_params(torch.ones(3, 4)), before, rtol=0, atol=0)
    assert not before.requires_grad
    info = teacher.info
    assert (info.footprint.params, info.footprint.macs) == (4 * 8 + 8 + 8 * 2 + 2, 4 * 8 + 8 * 2)
    assert info.layers == ((4, 8), (8, 2))
    assert (info.activation, info.algo, info.env_id, info.source, info.notes) == (
        "tanh",
        "custom",
        "Own-v0",
        "live mine",
        (),
    )
    assert teacher.distribution == DiagGaussian(2)
    assert load_teacher(teacher) is teacher
    assert load_teacher(teacher, env_id="Other-v0").info.env_id == "Other-v0"


def test_the_fingerprint_is_that_of_the_weights(agent):
    one, two = (make_custom_teacher(agent, OBSERVATIONS, BOX) for _ in range(2))
    assert one.fingerprint == two.fingerprint == one.info.sha256 == one.to("cpu").fingerprint
    with torch.no_grad():
        agent.actor[0].weight[0, 0] += 1e-3
    changed = make_custom_teacher(agent, OBSERVATIONS, BOX)
    squashed = make_custom_teacher(agent, OBSERVATIONS, BOX, distribution="squashed_gaussian")
    assert len({one.fingerprint, changed.fingerprint, squashed.fingerprint}) == 3


def test_a_function_is_not_counted_but_known_again():
    def scripted(x):
        return torch.stack([-x[:, 2], x[:, 2]], -1)

    teacher = make_custom_teacher(scripted, OBSERVATIONS, spaces.Discrete(2))
    assert teacher.info.footprint.params == 0
    assert "compression is not known" in teacher.info.notes[0]
    assert teacher.info.source == "live scripted"
    assert teacher.distribution == Categorical(2)
    again = make_custom_teacher(scripted, OBSERVATIONS, spaces.Discrete(2))
    other = make_custom_teacher(lambda x: -scripted(x), OBSERVATIONS, spaces.Discrete(2), name="scripted")
    assert teacher.fingerprint == again.fingerprint != other.fingerprint
    action, _ = teacher.predict(np.array([0, 0, 1, 0], "f4"), deterministic=True)
    assert int(action) == 1


@pytest.mark.parametrize(
    ("space", "options", "width", "expected"),
    [
        (BOX, {"distribution": "squashed_gaussian"}, 4, ("policy", "unscale", SquashedDiagGaussian(2))),
        (BOX, {"distribution": SquashedDiagGaussian(2)}, 4, ("policy", "unscale", SquashedDiagGaussian(2))),
        (BOX, {"unscale": True}, 4, ("policy", "unscale", DiagGaussian(2))),
        (BOX, {"kind": "deterministic"}, 2, ("deterministic", "clip", DiagGaussian(2))),
        (BOX, {"kind": "deterministic", "unscale": True}, 2, ("deterministic", "unscale", DiagGaussian(2))),
        (spaces.Discrete(3), {"kind": "value"}, 3, ("value", "discrete", Categorical(3))),
        (spaces.MultiBinary(3), {}, 3, ("policy", "multi_binary", None)),
        (spaces.MultiDiscrete([2, 3]), {}, 5, ("policy", "multi_discrete", None)),
    ],
)
def test_kinds(space, options, width, expected):
    teacher = make_custom_teacher(nn.Linear(4, width), OBSERVATIONS, space, **options)
    kind, mapped, distribution = expected
    assert (teacher.value_teacher, teacher.deterministic_teacher) == (kind == "value", kind == "deterministic")
    assert teacher.action_map.kind == mapped
    assert distribution in (None, teacher.distribution)
    assert teacher.distribution_params(torch.zeros(5, 4)).shape == (5, teacher.distribution.n_params)
    action, _ = teacher.predict(np.zeros(4, "f4"))
    assert space.contains(action) or isinstance(space, spaces.Discrete)
    if kind == "value":
        assert teacher.with_logit_scale(2.0).logit_scale == 2.0
    if kind == "deterministic":
        std = [0.1, 0.1] if mapped == "unscale" else [0.2, 0.05]
        torch.testing.assert_close(teacher.distribution_params(torch.zeros(1, 4))[0, 2:].exp(), torch.tensor(std))


def test_integer_observations_come_as_floats():
    images = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    teacher = make_custom_teacher(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), images, spaces.Discrete(2))
    assert teacher.predict(images.sample())[0].shape == ()


@pytest.mark.parametrize(
    ("forward", "space", "options", "words"),
    [
        (nn.Linear(4, 3), spaces.Discrete(2), {}, r"gave shape \(1, 3\) for 1 observations, expected .*\(1, 2\)"),
        (nn.Linear(4, 2), BOX, {}, r"expected a tensor of shape \(1, 4\)"),
        (nn.Linear(5, 2), spaces.Discrete(2), {}, "forward raised RuntimeError"),
        (lambda x: (x, x), spaces.Discrete(2), {}, "gave a tuple"),
        (lambda x: x[0, :2], spaces.Discrete(2), {}, r"gave shape \(2,\)"),
        (lambda x: 1 // 0, spaces.Discrete(2), {}, "forward raised ZeroDivisionError"),
        (lambda x: x[:, :2] / 0, spaces.Discrete(2), {}, "NaN or infinity"),
        (nn.Linear(4, 2), spaces.Discrete(2), {"distribution": "gaussian"}, "does not fit actions Discrete"),
        (nn.Linear(4, 2), spaces.Discrete(2), {"distribution": Categorical(3)}, r"need Categorical\(n=2\)"),
        (nn.Linear(4, 2), spaces.Discrete(2), {"distribution": 7}, "distribution is a int"),
        (nn.Linear(4, 2), spaces.Discrete(2), {"kind": "q"}, "kind is 'q', expected one of policy, value"),
        (nn.Linear(4, 2), spaces.Discrete(2), {"kind": "deterministic"}, "needs Box actions"),
        (nn.Linear(4, 2), BOX, {"kind": "value"}, "values are for Discrete actions"),
        (nn.Linear(4, 2), spaces.Text(3), {}, "action_space is a Text"),
        (nn.Linear(4, 4), BOX, {"distribution": "squashed_gaussian", "unscale": False}, "leave unscale out"),
        (3, spaces.Discrete(2), {}, "forward is a int"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(forward, space, options, words):
    with pytest.raises(InputError, match=words) as refusal:
        make_custom_teacher(forward, OBSERVATIONS, space, **options)
    assert "\n" not in str(refusal.value)


def test_dict_observations_are_refused():
    space = spaces.Dict({"a": OBSERVATIONS})
    with pytest.raises(InputError, match="observation_space is a Dict, expected a Box"):
        make_custom_teacher(nn.Linear(4, 2), space, spaces.Discrete(2))


def test_nan_while_running_is_refused():
    teacher = make_custom_teacher(lambda x: torch.sqrt(20 - x[:, :2]), OBSERVATIONS, spaces.Discrete(2))
    with pytest.raises(NumericsError, match="NaN or infinity"):
        teacher.distribution_params(torch.full((1, 4), 30.0))


def test_a_bare_module_is_told_how():
    with pytest.raises(InputError, match="make_custom_teacher"):
        load_teacher(nn.Linear(4, 2))


def test_it_acts_in_its_environment():
    env = gym.make("CartPole-v1")
    teacher = make_custom_teacher(
        lambda x: torch.stack([-(x[:, 2] + x[:, 3]), x[:, 2] + x[:, 3]], -1),
        env.observation_space,
        env.action_space,
        kind="value",
        name="balance",
    )
    observation, _ = env.reset(seed=0)
    steps = 0
    for _ in range(200):
        observation, _, done, _, _ = env.step(teacher.predict(observation)[0])
        steps += 1
        if done:
            break
    assert steps > 100
