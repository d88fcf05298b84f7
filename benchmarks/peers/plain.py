"""What a competent user writes without us: stable-baselines3's predict and get_distribution, DummyVecEnv, torch's eager
Adam. It labels each round in one call, keeps its environments, and learns on from round to round, as we do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.tasks import Checkpoint, Race, Setting, Stopwatch
from policykd.loss.distributions import Categorical
from policykd.rollout.envs import EnvSpec
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.teachers.base import Teacher
from policykd.teachers.networks import ConstantStd, Dense, Network
from policykd.teachers.normalize import Normalizer

_UNBOUNDED = 1e30  # an observation that is not normalised
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Plain:
    """The teacher as an SB3 model with the same weights, and the script around it."""

    def __init__(self, teacher: Teacher, spec: EnvSpec, width: int) -> None:
        self._teacher, self._spec, self._width = teacher, spec, width
        self.model = sb3_model(teacher, self._envs(1))

    def race(self, setting: Setting, seed: int) -> Race:
        """One run of the script."""
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield from self._rounds(setting, seed)

    def _rounds(self, setting: Setting, seed: int) -> Iterator[Checkpoint]:
        watch = Stopwatch()
        envs = self._envs(setting.n_envs)
        envs.seed(seed)
        observation: Any = envs.reset()
        student = mlp(int(np.prod(observation.shape[1:])), self._width, self._teacher.distribution.n_means)
        log_std = nn.Parameter(torch.zeros(self._teacher.distribution.n_params - self._teacher.distribution.n_means))
        adam = torch.optim.Adam([*student.parameters(), log_std], lr=setting.learning_rate)
        seen, labels = torch.empty(0), torch.empty(0)
        for index in range(setting.rounds):
            states = []
            for _ in range(setting.n_steps):
                states.append(observation)
                observation = envs.step(self._actions(observation, student, log_std, by_teacher=index == 0))[0]
            new = torch.as_tensor(np.concatenate(states), dtype=torch.float32)
            seen, labels = torch.cat([seen, new]), torch.cat([labels, label(self.model, new)])
            if index == 0 and len(log_std):
                log_std.data.copy_(labels[0, -len(log_std) :])
            for k in range(setting.updates):
                adam.param_groups[0]["lr"] = setting.rate(index * setting.updates + k)
                batch = torch.randint(len(seen), (setting.batch,))
                loss = kl(student(seen[batch]), log_std, labels[batch])
                adam.zero_grad()
                loss.backward()
                adam.step()
            watch.stop()
            now, updates = self._student(student, log_std), (index + 1) * setting.updates
            yield Checkpoint(now, watch.seconds, watch.cpu, len(seen), updates)
            watch.start()
        envs.close()

    def _actions(self, observation: Any, student: nn.Module, log_std: Tensor, *, by_teacher: bool) -> Any:
        """The teacher samples in round 0, later the student does."""
        if by_teacher:
            return self.model.predict(observation, deterministic=False)[0]
        with torch.no_grad():
            output = student(torch.as_tensor(observation, dtype=torch.float32))
            if isinstance(self._teacher.distribution, Categorical):
                return torch.multinomial(output.softmax(-1), 1).squeeze(-1).numpy()
            actions = (output + log_std.exp() * torch.randn_like(output)).numpy()
        space: Any = self._teacher.action_space
        return np.clip(actions, space.low, space.high)

    def _envs(self, n: int) -> DummyVecEnv | VecNormalize:
        """Without a render mode, which `make_vec_env` sets and which makes LunarLander nine times slower."""
        envs = DummyVecEnv([lambda: gym.make(self._spec.id, **self._spec.kwargs)] * n)
        statistics = self._teacher.normalizer
        if not isinstance(statistics, Normalizer):
            return envs
        normal: Any = VecNormalize(
            envs, training=False, norm_reward=False, clip_obs=statistics.clip, epsilon=statistics.epsilon
        )
        normal.obs_rms.mean, normal.obs_rms.var = statistics.mean, statistics.var
        return normal  # type: ignore[no-any-return]

    def _student(self, student: nn.Sequential, log_std: Tensor) -> MlpStudent:
        dense = [layer for layer in student if isinstance(layer, nn.Linear)]
        layers = tuple((layer.weight.detach().T.clone(), layer.bias.detach().clone()) for layer in dense)
        return as_student(self._teacher, layers, log_std.detach().clone())


def sb3_model(teacher: Teacher, envs: Any) -> PPO:
    """stable-baselines3's own model with the teacher's weights: its loader fails on the zoo's files today."""
    network = teacher.network
    assert isinstance(network, Network)
    dense = [layer for layer in network.layers if isinstance(layer, Dense)]
    hidden = [layer.sizes[1] for layer in dense[:-1]]
    kwargs = {"net_arch": {"pi": hidden, "vf": hidden}, "activation_fn": _ACTIVATIONS[dense[0].activation]}
    model = PPO("MlpPolicy", envs, policy_kwargs=kwargs, device="cpu")
    policy: Any = model.policy
    own = [layer for layer in policy.mlp_extractor.policy_net if isinstance(layer, nn.Linear)] + [policy.action_net]
    with torch.no_grad():
        for layer, given in zip(own, dense, strict=True):
            assert given.bias is not None
            layer.weight.copy_(given.weight)
            layer.bias.copy_(given.bias)
        if isinstance(network.head, ConstantStd):
            policy.log_std.copy_(network.head.log_std)
    return model


def label(model: PPO, observations: Tensor) -> Tensor:
    """What the teacher says of (normalised) observations [B, O]: log-probabilities, or means and log_std [B, P]."""
    with torch.no_grad():
        found: Any = model.policy.get_distribution(observations).distribution
        if isinstance(found, torch.distributions.Categorical):
            return found.logits
        return torch.cat([found.mean, found.stddev.log()], -1)


def kl(output: Tensor, log_std: Tensor, labels: Tensor) -> Tensor:
    """Mean KL(teacher || student) in nats of outputs [B, M] against labels [B, P]."""
    if not len(log_std):
        return F.kl_div(output.log_softmax(-1), labels, reduction="batchmean", log_target=True)
    mean, teacher_log_std = labels.chunk(2, -1)
    distance = (teacher_log_std.exp() ** 2 + (mean - output) ** 2) / (2 * (2 * log_std).exp())
    return (log_std - teacher_log_std + distance - 0.5).sum(-1).mean()


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two tanh layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)
    )


def as_student(teacher: Teacher, layers: tuple[tuple[Tensor, Tensor], ...], log_std: Tensor) -> MlpStudent:
    """Weights [in, out] and biases that know observations as the teacher's statistics leave them, for the judge."""
    n = int(np.prod(teacher.observation_space.shape or ()))
    still: NDArray[np.float32] = np.zeros(n, np.float32)
    normaliser = Normaliser(still, np.ones(n, np.float32), _UNBOUNDED)
    if isinstance(teacher.normalizer, Normalizer):
        s = teacher.normalizer
        normaliser = Normaliser.of_teacher(s.mean, s.std, s.clip)
    return MlpStudent(
        normaliser=normaliser,
        layers=layers,
        log_std=log_std,
        activation="tanh",
        distribution=teacher.distribution,
        action_map=teacher.action_map,
        observation_space=teacher.observation_space,
        action_space=teacher.action_space,
    )
