"""Fails when NumPy's forward is not torch's to float32 rounding, when a sample is not of its distribution, when a
result is overwritten by the next call, or when `rollout.kernel` is not settled once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd import Config, distill
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.rollout.collect import Shard, collect, label
from policykd.rollout.draws import Sampler, mode
from policykd.rollout.envs import EnvSpec, teacher_spec
from policykd.rollout.few_rows import FewRows
from policykd.rollout.inputs import full
from policykd.rollout.kernels import Members, kernel_of, params_of
from policykd.rollout.lean import lean_driver
from policykd.spine.config.load import load_config
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.spine.packing import packing_of
from policykd.spine.seeding import SeedKey
from policykd.students.family import Family
from policykd.students.normaliser import Normaliser
from policykd.students.spec import MemberSpec
from policykd.students.view import View
from policykd.teachers.base import Interface, Teacher
from policykd.teachers.extractors import Extractor, Flat
from policykd.teachers.load import load_teacher
from policykd.teachers.networks import ConstantStd, Dense, Logits, Network, QuantileMean
from policykd.teachers.normalize import Normalizer
from tests.support.core import FAMILIES, Quiet, student

RNG = np.random.default_rng(0)


def everything(policy: Any) -> View:
    return View.of(None, policy.observation_space, policy.packing)


def close(found: Any, expected: torch.Tensor) -> None:
    largest = max(1.0, float(expected.abs().max()))  # of which a sum that cancels keeps the rounding
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-6 * largest)


@pytest.mark.parametrize("batch", [1, 7, 300])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_in_numpy_is_the_one_in_torch(name: str, activation: Any, batch: int) -> None:
    policy = student(name, activation, hidden=(48, 40))
    kernel = kernel_of(policy)
    assert kernel is not None
    seen = RNG.normal(1.0, 30.0, (batch, 3))
    expected = policy.distribution_params(torch.from_numpy(seen))
    found = params_of(kernel, seen)
    close(found, expected)
    params_of(kernel, seen + 1)
    close(found, expected)  # the next call leaves it alone
    np.testing.assert_allclose(
        mode(policy.distribution, found), policy.distribution.mode(expected), rtol=1e-4, atol=1e-5
    )


def teacher(head: Any, outputs: int, distribution: Any, action_space: Any, **options: Any) -> Teacher:
    sizes = [(5, 64), (64, 64), (64, outputs)]
    layers = tuple(
        Dense(torch.from_numpy(RNG.normal(size=(o, i)).astype("f4")) / i**0.5, torch.rand(o), "tanh") for i, o in sizes
    )
    layers = (*layers[:-1], replace(layers[-1], activation="identity", weight=3 * layers[-1].weight))
    kind = options.pop("kind", "policy")
    network = Network(Extractor((Flat(5),)), layers, head, distribution, kind, False)
    info = load_teacher("builtin:cartpole").info
    interface = Interface(spaces.Box(-np.inf, np.inf, (5,), np.float64), action_space)
    return Teacher(network, interface, replace(info, algo="ppo"), **options)


BOX = spaces.Box(-1, 1, (2,), np.float32)
STATISTICS = Normalizer(RNG.normal(size=5) * 100, RNG.uniform(0.1, 9, 5), clip=1.5)
TEACHERS = {
    "logits": lambda: teacher(Logits(), 3, Categorical(3), spaces.Discrete(3)),
    "scaled": lambda: teacher(Logits(), 3, Categorical(3), spaces.Discrete(3), kind="value", logit_scale=0.3),
    "quantiles": lambda: teacher(QuantileMean(4, 3), 12, Categorical(3), spaces.Discrete(3), kind="value"),
    "gaussian": lambda: teacher(ConstantStd(torch.tensor([[-0.5, 0.2]])), 2, DiagGaussian(2), BOX),
    "normalised": lambda: teacher(ConstantStd(torch.zeros(2)), 2, DiagGaussian(2), BOX, normalizer=STATISTICS),
}


@pytest.mark.parametrize("batch", [3, 500])
@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_in_numpy_is_the_one_in_torch(name: str, batch: int) -> None:
    policy = TEACHERS[name]()
    kernel = kernel_of(policy)
    assert kernel is not None
    seen = RNG.normal(STATISTICS.mean if name == "normalised" else 0.0, 3.0, (batch, 5))
    close(params_of(kernel, seen), policy.distribution_params(torch.from_numpy(seen)))


def test_what_numpy_cannot_do_is_left_to_torch() -> None:
    assert kernel_of(replace(student("categorical"), masked=True)) is None
    assert kernel_of(load_teacher("builtin:pendulum")) is None  # log_std depends on the state
    plain = TEACHERS["logits"]()
    strange = replace(plain.network.layers[0], activation="mish")
    odd = Teacher(replace(plain.network, layers=(strange, *plain.network.layers[1:])), plain._interface, plain.info)
    assert kernel_of(odd) is None


@pytest.mark.parametrize("name", ["categorical", "gaussian"])
@pytest.mark.parametrize("specs", [[(2, 8)], [(1, 8), (2, 5), (2, 24)], [(0, 0), (2, 300)]])
def test_members_in_numpy_act_as_in_torch(name: str, specs: list[tuple[int, int]]) -> None:
    distribution = FAMILIES[name][0]
    family = Family([MemberSpec(*spec) for spec in specs], 3, distribution, root_seed=4)
    family.flat.add_(torch.from_numpy(RNG.normal(size=len(family.flat)).astype("f4") * 0.1) * (family.flat != 0))
    family.log_std.copy_(torch.arange(family.log_std.numel()).view(family.log_std.shape) * 0.1 - 1)
    seen = RNG.normal(size=(6 * len(specs), 3))
    members = Members(family, Normaliser.measured(seen), everything(student(name)))
    kernel = members.kernel(len(seen))
    assert kernel is not None
    close(params_of(kernel, seen), members(torch.from_numpy(seen)))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("spec", [(0, 0), (1, 8), (3, 48)])
def test_a_collecting_student_sees_far_and_still_features_as_in_torch(spec: tuple[int, int], activation: Any) -> None:
    family = Family([MemberSpec(*spec)], 4, DiagGaussian(2), activation=activation, root_seed=4)
    family.flat.add_(torch.from_numpy(RNG.normal(size=len(family.flat)).astype("f4") * 0.1))
    seen = RNG.normal([0, 5, -300, 7], [1, 0.01, 40, 0], (9, 4))
    normaliser = Normaliser.measured(seen)
    scale = normaliser.scale * np.array([1, 1, -1, 0], np.float32)
    space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    view = View.of(None, space, packing_of(space))
    members = Members(family, replace(normaliser, limit=0.7, scale=scale), view)
    kernel = members.kernel(9)
    assert isinstance(kernel, FewRows)
    for far in (seen, seen * 100, -seen):
        close(params_of(kernel, far.astype("f4")), members(torch.from_numpy(far.astype("f4"))))


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_have_their_distribution(name: str) -> None:
    distribution = FAMILIES[name][0]
    params = student(name).distribution_params(torch.tensor([[1.0, 0.5, -3.0]]))[0]
    means, log_std = params[: distribution.n_means].numpy(), params[distribution.n_means :].numpy()
    sampler = Sampler(distribution, 500, np.random.default_rng(1), log_std)
    found = np.concatenate([sampler(full(means, 500)).copy() for _ in range(80)]).reshape(40_000, -1)
    expected = distribution.sample(params.expand(40_000, -1), torch.Generator().manual_seed(2)).reshape(40_000, -1)
    for power in (1, 2):
        a, b = found.astype(float) ** power, expected.double().numpy() ** power
        error = np.sqrt((a.var(0) + b.var(0)) / 40_000) + 1e-9
        assert (abs(a.mean(0) - b.mean(0)) < 5 * error).all()


@pytest.mark.parametrize("name", ["gaussian", "normalised", "logits"])
def test_actions_lie_in_their_space_and_belong_to_whoever_asked(name: str) -> None:
    policy = TEACHERS[name]()
    config = RolloutConfig(kernel="numpy", teacher_stochastic=False)
    driver = lean_driver(Shard(SeedKey(0, "collect"), 40, 2, 1.0, config), policy, None)
    assert driver is not None
    seen = RNG.normal(0, 30, (2, 40, 5))
    kept = [driver.decide(one)[0] for one in seen]
    for one, actions in zip(seen, kept, strict=True):  # the second call left the first one's actions alone
        expected, _ = policy.predict(one, deterministic=True)
        np.testing.assert_allclose(actions, expected, atol=1e-5)
        assert actions.dtype == expected.dtype and all(action in policy.action_space for action in actions)
    if name != "logits":
        assert (np.abs(kept[0]) == 1).any(), "no bound was reached"
    labels = driver.labels(seen)
    close(labels, policy.distribution_params(torch.from_numpy(seen).flatten(0, 1)).reshape(2, 40, -1))


def test_sampled_actions_lie_in_their_space_and_stay_as_they_were_handed_out() -> None:
    policy = TEACHERS["gaussian"]()
    family = Family([MemberSpec(1, 8)], 5, policy.distribution)
    members = Members(family, Normaliser.measured(RNG.normal(size=(9, 5))), everything(policy))
    shard = Shard(SeedKey(0, "collect"), 40, 2, 0.0, RolloutConfig(kernel="numpy", student_stochastic=True))
    first, again = (lean_driver(shard, policy, members) for _ in range(2))
    assert first is not None and again is not None
    seen = RNG.normal(size=(150, 40, 5))  # more than are drawn at once
    kept = [first.decide(one)[0] for one in seen]
    assert np.array_equal(kept, [again.decide(one)[0].copy() for one in seen])
    assert np.abs(kept).max() == 1 and (np.abs(kept) == 1).mean() < 0.5
    assert len(np.unique(np.stack(kept).reshape(150, -1), axis=0)) == 150


def gather(policy: Any, spec: EnvSpec, kernel: Any, beta: float, **acting: Any) -> Any:
    shard = Shard(SeedKey(5, "collect", 1), 3, 120, beta, RolloutConfig(kernel=kernel, **acting))
    family = Family([MemberSpec(2, 16)], policy.packing.n_features, policy.distribution, root_seed=1)
    size = policy.packing.n_features
    members = Members(family, Normaliser(np.zeros(size, np.float32), np.ones(size, np.float32)), everything(policy))
    return collect(shard, spec, policy, members, Quiet())


@pytest.mark.parametrize("source", ["builtin:cartpole", "builtin:lunarlander"])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_rollout_in_numpy_is_the_one_in_torch(source: str, beta: float) -> None:
    policy = load_teacher(source)
    spec = teacher_spec(EnvConfig(backend="sync"), policy.info)
    options = {"teacher_stochastic": False, "student_stochastic": False}
    a, b = (gather(policy, spec, kernel, beta, **options) for kernel in ("numpy", "torch"))
    assert a.timesteps == b.timesteps and np.array_equal(a.actor, b.actor) and np.array_equal(a.start, b.start)
    np.testing.assert_allclose(a.observation, b.observation, atol=1e-3)
    np.testing.assert_allclose(a.returns, b.returns, rtol=1e-3, atol=1e-2)
    expected = policy.distribution_params(torch.from_numpy(a.observation).flatten(0, 1)).reshape(120, 3, -1)
    close(label(a, policy, Quiet()), expected)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_a_shard_in_numpy_is_a_pure_function_of_its_key(beta: float) -> None:
    policy = load_teacher("builtin:cartpole")
    spec = EnvSpec("CartPole-v1", backend="native")
    a, b = (gather(policy, spec, "numpy", beta, student_stochastic=True) for _ in range(2))
    for name in ("observation", "acting", "start", "actor", "returns", "lengths", "slot", "params"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    torch_one = gather(policy, spec, "torch", beta, student_stochastic=True)
    assert not np.array_equal(a.observation, torch_one.observation), "the kernel was not used"
    share = (a.actor == -1).mean()
    assert abs(share - beta) < 0.1


def test_the_kernel_is_settled_once(tmp_path: Any) -> None:
    small = {"rollout": {"rounds": 1, "timesteps": 400, "n_envs": 2}, "update": {"n_updates": 5}}
    for index, (wanted, settled) in enumerate((("auto", "numpy"), ("torch", "torch"))):
        rollout = {**small["rollout"], "kernel": wanted}
        config = Config(**{**small, "rollout": rollout}, evaluate={"episodes": 2, "select_episodes": 2})
        run = distill(config, out=tmp_path / str(index))
        assert load_config(str(run.folder / "config.yaml")).rollout.kernel == settled
    config = Config(teacher="builtin:pendulum", rollout={**small["rollout"], "kernel": "numpy"})
    with pytest.raises(InputError, match=r"^rollout\.kernel numpy: "):
        distill(config, out=tmp_path / "no")
