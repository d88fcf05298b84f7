"""A student in PPO and SAC: it acts as it did, the losses get exactly the pull, the warm-up leaves it alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from policykd.exports.sb3_models import actor_layers
from policykd.finetuning.kickstart import Kickstart
from policykd.finetuning.models import Model, model_of, refuse_pair, refuse_student, student_of
from policykd.finetuning.off_policy import KickstartedSAC
from policykd.finetuning.on_policy import KickstartedPPO
from policykd.finetuning.state import Progress, facts_of, restore, tensors_of
from policykd.loss.losses import forward_kl
from policykd.rollout.envs import factory_spec
from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.students.mlp import MlpStudent
from policykd.teachers.custom import make_custom_teacher
from policykd.teachers.load import load_teacher
from tests.support.exported import OBSERVATIONS, batch_of, student_on
from tests.support.teachers import Spaces

SETTINGS: dict[str, Any] = {
    "timesteps": 256, "warmup_steps": 64, "n_envs": 2, "n_steps": 32, "batch_size": 16, "n_epochs": 2,
    "schedule": "constant", "kickstart": 0.7, "target_kl": None, "entropy": 0.1,
}  # fmt: skip
BOX = OBSERVATIONS["box"]


def teacher_of(student: MlpStudent) -> Any:
    other = student_on(BOX, _family(student), "relu", hidden=(4,))
    return make_custom_teacher(
        other.distribution_params, BOX, student.action_space, distribution=student.distribution, name="other"
    )


def _family(student: MlpStudent) -> str:
    names = {"DiagGaussian": "gaussian", "SquashedDiagGaussian": "squashed", "Categorical": "categorical"}
    return names.get(type(student.distribution).__name__, "bernoulli")


def made(family: str, **settings: Any) -> tuple[Model, MlpStudent]:
    """A model with its student inside, in random environments."""
    student = refuse_student(student_on(BOX, family), "student")
    config = FinetuneConfig(**(SETTINGS | settings))
    spec = factory_spec(lambda: Spaces(BOX, student.action_space))
    kick = Kickstart(teacher_of(student), config, config.kickstart)
    model = model_of(student, kick, spec, Config(device="cpu"))
    model.set_logger(Logger(None, []))
    return model, student


def actor_of(model: Model) -> list[torch.Tensor]:
    parts = actor_layers(model.policy, squash=isinstance(model, KickstartedSAC))
    return [parameter.detach().clone() for part in parts for parameter in part.parameters()]


@pytest.mark.parametrize("family", ["categorical", "gaussian", "squashed", "bernoulli"])
def test_the_student_acts_as_before_and_comes_back_as_it_was(family: str) -> None:
    model, student = made(family)
    batch = batch_of(BOX)
    expected, _ = student.predict(batch, deterministic=True)
    actions, _ = model.predict(batch, deterministic=True)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
    back = student_of(model, student)
    for ours, theirs in zip(back.weights().values(), student.weights().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(back.log_std, student.log_std)
    assert back.normaliser is student.normaliser
    assert back.footprint == student.footprint


@pytest.mark.parametrize("proximal", [False, True])
@pytest.mark.parametrize("family", ["categorical", "gaussian"])
def test_the_entropy_term_of_ppo_holds_entropy_and_pull(family: str, proximal: bool) -> None:
    model, student = made(family, proximal=proximal)
    assert isinstance(model, KickstartedPPO) and model.ent_coef == 1.0
    model.learn(64)  # one rollout
    data = next(iter(model.rollout_buffer.get(16)))
    data = replace_old(model, data, 0.4)
    actions = data.actions.long().flatten() if family == "categorical" else data.actions
    _, log_prob, term = model.policy.evaluate_actions(data.observations, actions)
    params = student.distribution_params(data.observations)
    kl = forward_kl(student.distribution, model.kick.teacher.distribution_params(data.observations), params)
    factor = torch.clamp(torch.exp(log_prob - data.old_log_prob), min=0.8) if proximal else 1.0
    expected = 0.1 * student.distribution.entropy(params) - 0.7 * factor * kl
    assert kl.min() > 1e-3
    torch.testing.assert_close(term, expected, rtol=1e-4, atol=1e-5)


def replace_old(model: Any, data: Any, shift: float) -> Any:
    """The batch as if its actions had been that much more or less likely."""
    shifts = torch.linspace(-shift, shift, len(data.old_log_prob))
    model.rollout_buffer.last = data._replace(old_log_prob=data.old_log_prob + shifts)
    return model.rollout_buffer.last


def test_the_actors_step_of_sac_has_the_gradient_of_the_pull() -> None:
    model, student = made("squashed", warmup_steps=0)
    assert isinstance(model, KickstartedSAC)
    model.learn(4)
    buffer: Any = model.replay_buffer
    observation = buffer.sample(8).observations
    model.actor.optimizer.zero_grad()
    model._add_gradient()
    found = [part.grad.clone() for part in model.actor.parameters() if part.grad is not None]
    model.actor.optimizer.zero_grad()
    mean, log_std, _ = model.actor.get_action_dist_params(observation)
    labels = model.kick.teacher.distribution_params(observation)
    (0.7 * student.distribution.kl(labels, torch.cat([mean, log_std], -1)).mean()).backward()
    expected = [part.grad.clone() for part in model.actor.parameters() if part.grad is not None]
    assert len(found) == len(expected) > 4
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not model.actor.log_std.weight.any()  # the student's deviation is one for all states


@pytest.mark.parametrize("family", ["gaussian", "squashed"])
def test_the_warm_up_moves_the_critic_alone(family: str) -> None:
    model, _ = made(family, warmup_steps=128, timesteps=129)
    before, critic = actor_of(model), _critic(model)
    model.learn(128)
    assert model.warmup.done and model.warmup.rounds
    assert all(torch.equal(a, b) for a, b in zip(actor_of(model), before, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(_critic(model), critic, strict=True))
    assert model.get_env().scale != 1.0
    model.learn(64, reset_num_timesteps=False)
    assert not all(torch.equal(a, b) for a, b in zip(actor_of(model), before, strict=True))


def _critic(model: Any) -> list[torch.Tensor]:
    parts = model.critic.qf0 if isinstance(model, KickstartedSAC) else model.policy.mlp_extractor.value_net
    return [parameter.detach().clone() for parameter in parts.parameters()]


def test_a_teachers_critic_is_asked_in_the_warm_up() -> None:
    teacher = load_teacher("builtin:cartpole")
    student = student_on(teacher.observation_space, "categorical", action_space=teacher.action_space)
    two = (student.layers[-1][0][:, :2], student.layers[-1][1][:2])
    student = replace(student, layers=(*student.layers[:-1], two), distribution=teacher.distribution)
    config = FinetuneConfig(**(SETTINGS | {"warmup_steps": 64, "n_steps": 32}))
    import gymnasium as gym

    spec = factory_spec(lambda: gym.make("CartPole-v1"))
    model = model_of(student, Kickstart(teacher, config, 0.0), spec, Config(device="cpu"))
    model.set_logger(Logger(None, []))
    model.learn(64)
    assert model.warmup.teacher_r2 is not None
    assert model.warmup.source == ("teacher" if model.warmup.teacher_r2 >= 0.5 else "returns")


@pytest.mark.parametrize("family", ["categorical", "squashed"])
def test_a_checkpoint_holds_all_that_the_next_update_needs(family: str) -> None:
    model, student = made(family)
    model.learn(100)
    progress = Progress(student)
    tensors = {name: np.array(value) for name, value in tensors_of(model, student).items()}
    facts = facts_of(model, progress)
    again, _ = made(family)
    back = restore(again, tensors, facts, student)
    assert back.best.weights().keys() == student.weights().keys()
    assert facts_of(again, back) == facts
    found = tensors_of(again, student)
    assert tensors.keys() == found.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    again.learn(64, reset_num_timesteps=False)


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        (student_on(OBSERVATIONS["discrete"], "categorical"), "takes one Box of numbers: add FlattenObservation"),
        (student_on(OBSERVATIONS["image last"], "categorical"), "takes one Box of numbers"),
        (student_on(BOX, "categorical", masked=True), "acts with action masks"),
        (student_on(BOX, "gaussian", unscale=True), r"its teacher was deterministic \(TD3, DDPG\)"),
        (
            student_on(BOX, "gaussian", action_space=spaces.Box(-np.inf, np.inf, (2,), np.float32), unscale=False),
            "which stable-baselines3 does not take",
        ),
    ],
)
def test_what_it_cannot_go_on_with_is_refused_in_one_line(student: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        refuse_student(student, "s.safetensors")
    assert "\n" not in str(caught.value)


def test_a_teacher_of_another_kind_is_refused() -> None:
    student = student_on(BOX, "gaussian")
    with pytest.raises(InputError, match="observes or acts otherwise than live other"):
        refuse_pair(student, teacher_of(student_on(BOX, "categorical")), "s.safetensors")
