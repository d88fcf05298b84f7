"""A student in a model of stable-baselines3 that learns, and the way back. The normaliser stays inside, as it is."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

from policykd.exports.of_student import graph_of
from policykd.exports.sb3_models import actor_layers, fill, policy_kwargs
from policykd.exports.sb3_plan import plan_of
from policykd.finetuning.kickstart import Kickstart
from policykd.finetuning.off_policy import ENTROPY, KickstartedSAC, RememberingReplay
from policykd.finetuning.on_policy import KickstartedPolicy, KickstartedPPO, RememberingRollouts
from policykd.finetuning.rewards import ScaledRewards
from policykd.finetuning.warmup import Warmup
from policykd.loss.distributions import DiagGaussian, SquashedDiagGaussian
from policykd.rollout.envs import EnvSpec, make_env
from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.spaces import describe_space
from policykd.students.mlp import MlpStudent
from policykd.students.student import Student
from policykd.teachers.base import Teacher

Model = KickstartedPPO | KickstartedSAC


def refuse_student(student: Student, source: str) -> MlpStudent:
    """The student, where this version can go on with it; InputError, in one line, else."""
    if not isinstance(student, MlpStudent):
        raise InputError(
            f"{source}: is a student of kind {student.kind}, and policykd finetune of this version goes on with "
            "students of kind mlp: distil one with student.kind=mlp"
        )
    space = student.observation_space
    if not isinstance(space, spaces.Box) or is_image_space(space):
        raise InputError(
            f"{source}: observes {describe_space(space)[:80]}, and policykd finetune of this version takes one Box of "
            "numbers: add FlattenObservation to env.wrappers, and distil again"
        )
    if student.masked:
        raise InputError(
            f"{source}: acts with action masks, which policykd finetune of this version does not take: export it with "
            "--to sb3, and train on with MaskablePPO"
        )
    action = student.action_map
    if isinstance(student.distribution, DiagGaussian) and action.kind == "unscale":
        raise InputError(
            f"{source}: its teacher was deterministic (TD3, DDPG), and policykd finetune of this version takes "
            "students with a distribution of their own: use a teacher of PPO, A2C, TRPO, SAC or TQC"
        )
    endless = action.kind == "clip" and not np.isfinite([*action.low, *action.high]).all()
    if any(action.start) or len(action.shape) > 1 or endless:
        raise InputError(
            f"{source}: acts in {describe_space(student.action_space)[:80]}, which stable-baselines3 does not take: "
            "wrap the environment so that actions are one list with bounds, from 0, and distil again"
        )
    return student


def refuse_pair(student: Student, teacher: Teacher, source: str) -> None:
    """InputError unless the teacher's labels are of the student's kind, state by state."""
    if teacher.recurrent:
        raise InputError(
            f"{teacher.info.source}: has a memory, and policykd finetune of this version asks teachers state by state: "
            "use a teacher without one"
        )
    same = student.distribution == teacher.distribution and student.action_map == teacher.action_map
    if not same or student.packing.shape != teacher.packing.shape:
        raise InputError(
            f"{source}: observes or acts otherwise than {teacher.info.source}: give the teacher it was distilled from"
        )


def training_env(spec: EnvSpec, n_envs: int) -> ScaledRewards:
    """Environments for learning, each with a monitor inside."""
    return ScaledRewards(DummyVecEnv([lambda: Monitor(make_env(spec))] * n_envs))


def model_of(student: MlpStudent, kick: Kickstart, spec: EnvSpec, run: Config) -> Model:
    """A PPO or SAC whose actor is the student, with fresh critics and optimizers, in environments of its own; `run`
    gives seed and device."""
    config = kick.config
    graph = graph_of(student)
    squash = isinstance(student.distribution, SquashedDiagGaussian)
    env = training_env(spec, 1 if squash else config.n_envs)
    settings: dict[str, Any] = {
        "policy_kwargs": policy_kwargs(graph, replace(plan_of(graph), plain=False, normalised=())),
        "learning_rate": LinearSchedule(config.learning_rate, 0.1 * config.learning_rate, 1.0),
        "gamma": config.gamma,
        "batch_size": config.batch_size,
        "seed": run.seed,
        "device": run.device,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a last batch that is smaller than the others
        model: Model = _sac(env, config, settings) if squash else _ppo(env, config, settings)
    with torch.no_grad():
        fill(model.policy, graph)
    _connect(model, kick)
    return model


def student_of(model: Model, student: MlpStudent) -> MlpStudent:
    """The student with the numbers that the model's actor has now, on the CPU."""
    squash = isinstance(model, KickstartedSAC)
    policy: Any = model.policy
    layers = tuple(
        (linear.weight.detach().cpu().T.contiguous().clone(), linear.bias.detach().cpu().clone())
        for linear in actor_layers(policy, squash=squash)
    )
    log_std = student.log_std
    if len(log_std):
        log_std = (policy.actor.log_std.bias if squash else policy.log_std).detach().cpu().clone()
    return replace(student, layers=layers, log_std=log_std)


def _ppo(env: ScaledRewards, config: FinetuneConfig, settings: dict[str, Any]) -> KickstartedPPO:
    return KickstartedPPO(
        KickstartedPolicy,
        env,
        n_steps=config.n_steps,
        n_epochs=config.n_epochs,
        gae_lambda=config.gae_lambda if config.warmup_steps == 0 else 1.0,
        clip_range=config.clip_range,
        target_kl=config.target_kl,
        ent_coef=1.0,  # the policy weighs the entropy itself
        rollout_buffer_class=RememberingRollouts,
        **settings,
    )


def _sac(env: ScaledRewards, config: FinetuneConfig, settings: dict[str, Any]) -> KickstartedSAC:
    model = KickstartedSAC(
        "MlpPolicy",
        env,
        buffer_size=min(1_000_000, config.timesteps + 1),
        learning_starts=0,  # else actions are drawn at random until then
        ent_coef=ENTROPY,
        replay_buffer_class=RememberingReplay,
        **settings,
    )
    spread: Any = model.actor.log_std
    spread.weight.requires_grad_(False)  # a student's deviation does not depend on the state
    model.pull()
    return model


def _connect(model: Model, kick: Kickstart) -> None:
    model.kick, model.figures = kick, {}
    model.warmup = Warmup(done=kick.config.warmup_steps == 0)
    policy: Any = model.policy
    if isinstance(model, KickstartedPPO):
        policy.kick, policy.rollouts = kick, model.rollout_buffer
