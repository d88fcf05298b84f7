"""imitation's DAgger, run by the interpreter of its own environment: `python dagger_child.py TEACHER.npz`.

Told by lines of JSON on standard input, it answers with lines on standard output: one `order` a race, and after each
round what it has cost and where the student's weights lie; `{"go": true}` asks for another round. The clock stands
still while it waits. It imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from imitation.algorithms import bc
from imitation.algorithms.dagger import LinearBetaSchedule, SimpleDAggerTrainer
from imitation.util import logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

_ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def main() -> None:
    """Answers orders until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    with np.load(sys.argv[1]) as file:
        teacher = dict(file)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            _race(json.loads(line), teacher, Path(folder), answers)


def _race(order: dict[str, Any], teacher: dict[str, Any], folder: Path, answers: Any) -> None:
    setting = order["setting"]
    torch.manual_seed(order["seed"])
    expert = _expert(teacher, _envs(order["env"], 1, teacher))  # loaded before the clock starts
    begin = np.array([time.perf_counter(), time.process_time()])
    envs = _envs(order["env"], setting["n_envs"], teacher)
    envs.seed(order["seed"])
    trainer = _trainer(envs, expert, order, folder)
    updates, spent = _Counter(), np.zeros(2)
    for _ in range(setting["rounds"]):
        trainer.train(
            1,  # one round
            rollout_round_min_episodes=1,
            rollout_round_min_timesteps=setting["timesteps"],
            bc_train_kwargs={
                "n_epochs": setting["epochs"],
                "on_batch_end": updates,
                "log_rollouts_venv": None,  # judging is nobody's to pay
                "progress_bar": False,
            },
        )
        spent += np.array([time.perf_counter(), time.process_time()]) - begin
        seen = sum(len(path.acts) for path in trainer._all_demos)
        np.savez(folder / "student.npz", **_weights(trainer.policy))
        told = {"seconds": spent[0], "cpu": spent[1], "timesteps": seen, "updates": updates.n}
        answers.write(json.dumps(told | {"file": str(folder / "student.npz")}) + "\n")
        if not json.loads(sys.stdin.readline())["go"]:
            break
        begin = np.array([time.perf_counter(), time.process_time()])
    else:
        answers.write(json.dumps({"end": True}) + "\n")
    envs.close()


class _Counter:
    """Counts its calls."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> None:
        self.n += 1


def _envs(name: str, n: int, teacher: dict[str, Any]) -> Any:
    envs = DummyVecEnv([lambda: gym.make(name)] * n)
    if "mean" not in teacher:
        return envs
    normal: Any = VecNormalize(
        envs, training=False, norm_reward=False, clip_obs=float(teacher["clip"]), epsilon=float(teacher["epsilon"])
    )
    normal.obs_rms.mean, normal.obs_rms.var = teacher["mean"], teacher["var"]
    return normal


def _trainer(envs: Any, expert: Any, order: dict[str, Any], folder: Path) -> SimpleDAggerTrainer:
    setting, rng = order["setting"], np.random.default_rng(order["seed"])
    policy = _policy(envs, [order["width"], order["width"]], torch.nn.Tanh)
    quiet = logger.configure(str(folder / "log"), format_strs=[])
    cloning = bc.BC(
        observation_space=envs.observation_space,
        action_space=envs.action_space,
        rng=rng,
        policy=policy,
        batch_size=setting["batch"],
        optimizer_kwargs={"lr": setting["learning_rate"]},
        device="cpu",
        custom_logger=quiet,
    )
    return SimpleDAggerTrainer(
        venv=envs,
        scratch_dir=folder / "scratch",
        expert_policy=expert,
        rng=rng,
        bc_trainer=cloning,
        beta_schedule=LinearBetaSchedule(setting["rampdown"]),
        custom_logger=quiet,
    )


def _policy(envs: Any, widths: list[int], activation: type[torch.nn.Module]) -> ActorCriticPolicy:
    arch = {"pi": widths, "vf": widths}
    return ActorCriticPolicy(
        envs.observation_space, envs.action_space, lambda _: 1e-3, net_arch=arch, activation_fn=activation
    )


def _expert(teacher: dict[str, Any], envs: Any) -> ActorCriticPolicy:
    n = sum(name.startswith("weight") for name in teacher)
    widths = [int(teacher[f"weight{k}"].shape[0]) for k in range(n - 1)]
    policy = _policy(envs, widths, _ACTIVATIONS[str(teacher["activation"])])
    with torch.no_grad():
        for k, layer in enumerate(_dense(policy)):
            layer.weight.copy_(torch.from_numpy(teacher[f"weight{k}"]))
            layer.bias.copy_(torch.from_numpy(teacher[f"bias{k}"]))
        if "log_std" in teacher:
            policy.log_std.copy_(torch.from_numpy(teacher["log_std"]))
    return policy


def _dense(policy: Any) -> list[torch.nn.Linear]:
    hidden = [layer for layer in policy.mlp_extractor.policy_net if isinstance(layer, torch.nn.Linear)]
    return [*hidden, policy.action_net]


def _weights(policy: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for k, layer in enumerate(_dense(policy)):
        found[f"weight{k}"] = layer.weight.detach().numpy()
        found[f"bias{k}"] = layer.bias.detach().numpy()
    if hasattr(policy, "log_std"):
        found["log_std"] = policy.log_std.detach().numpy()
    return found


if __name__ == "__main__":
    main()
