"""`policy.zip` of stable-baselines3: it opens there, acts as the student and goes on learning."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from policykd.api import load_teacher
from policykd.exports.interface import interface_from_json, interface_of
from policykd.exports.of_student import graph_of
from policykd.exports.reference import run
from policykd.exports.sb3_policies import StudentFeatures
from policykd.exports.targets import sb3_zip
from policykd.exports.targets.table import Options, Target, target
from policykd.spine.errors import InputError
from policykd.students.normaliser import Normaliser
from tests.support.core import FAMILIES
from tests.support.exported import ELSEWHERE, OBSERVATIONS, batch_of, feed_of, mask_of, student_on
from tests.support.masked import MAKERS
from tests.support.teachers import Spaces

ALGORITHMS = {"PPO": PPO, "SAC": SAC, "MaskablePPO": MaskablePPO}
PLAIN = ("box", "float64", "matrix", "numbers by key")
SHORT = {"PPO": {"n_steps": 16, "batch_size": 8, "n_epochs": 2}, "SAC": {"learning_starts": 8, "batch_size": 8}}
SHORT["MaskablePPO"] = SHORT["PPO"]


def _written(policy, folder):
    graph = graph_of(policy)
    sb3_zip.check(graph, Options())
    facts = json.loads(json.dumps(sb3_zip.write(graph, folder, Options())))
    contract = interface_from_json(interface_of(graph).to_json())
    return sb3_zip.load(folder, contract, facts), facts


def _same(found, expected):
    assert found.shape == expected.shape
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    else:
        assert np.array_equal(found, expected)


def _as_exact(found, policy, batch):
    """The action is as near to float64 as the student's own float32, to a factor of 4."""
    exact = run(graph_of(policy), feed_of(policy, batch)).action
    own, _ = policy.predict(batch, deterministic=True)
    assert np.abs(found - exact).max() <= 4 * np.abs(own - exact).max() + 1e-7


def test_is_a_target():
    module: Target = target("sb3")
    assert module.RUNS_CODE


@pytest.mark.parametrize(("activation", "hidden"), [("tanh", (6, 5)), ("relu", (7,)), ("relu", (6, 4)), ("tanh", ())])
@pytest.mark.parametrize("family", FAMILIES)
def test_acts_as_the_student(tmp_path, family, activation, hidden):
    policy = student_on(OBSERVATIONS["box"], family, activation, hidden=hidden)
    runtime, facts = _written(policy, tmp_path)
    batch = batch_of(OBSERVATIONS["box"])
    action = runtime(feed_of(policy, batch))["action"]
    _same(action, policy.predict(batch, deterministic=True)[0])
    _as_exact(action, policy, batch)
    assert facts["algorithm"] == ("SAC" if family == "squashed" else "PPO")
    assert facts["plain"]
    assert facts["normalised"] == ["obs"]
    assert facts["bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sorted(facts["files"]) == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("family", ["gaussian", "squashed", "categorical"])
@pytest.mark.parametrize("space", OBSERVATIONS)
def test_takes_every_observation(tmp_path, space, family):
    policy = student_on(OBSERVATIONS[space], family)
    runtime, facts = _written(policy, tmp_path)
    batch = batch_of(OBSERVATIONS[space])
    expected, _ = policy.predict(batch, deterministic=True)
    action = runtime(feed_of(policy, batch))["action"]
    _same(action, expected)
    _as_exact(action, policy, batch)
    assert len(np.unique(expected)) >= (2 if family == "categorical" else 3)  # the observations count
    assert facts["plain"] == (space in PLAIN)
    assert ("vecnormalize.pkl" in facts["files"]) == facts["plain"]


@pytest.mark.parametrize("family", ["categorical", "multi", "bernoulli"])
def test_a_mask_forbids_as_in_the_student(tmp_path, family):
    policy = student_on(OBSERVATIONS["box"], family, masked=True)
    runtime, facts = _written(policy, tmp_path)
    head = graph_of(policy).head
    mask = mask_of(head.mask_size, head.branches or (2,) * head.size)
    batch = batch_of(OBSERVATIONS["box"])
    masked = runtime(feed_of(policy, batch, mask))["action"]
    free = runtime(feed_of(policy, batch))["action"]
    _same(masked, policy.predict(batch, deterministic=True, action_masks=mask)[0])
    _same(free, policy.predict(batch, deterministic=True)[0])
    assert not np.array_equal(masked, free)
    assert facts["algorithm"] == "MaskablePPO"


@pytest.mark.parametrize(("space", "family"), [("box", "gaussian"), ("box", "squashed"), ("all by key", "squashed")])
def test_samples_with_the_students_deviation(tmp_path, space, family):
    policy = student_on(OBSERVATIONS[space], family)
    _, facts = _written(policy, tmp_path)
    model = ALGORITHMS[facts["algorithm"]].load(tmp_path / "policy.zip")
    tensors, _ = model.policy.obs_to_tensor(batch_of(OBSERVATIONS[space], 8))
    if family == "gaussian":
        log_std = model.policy.get_distribution(tensors).distribution.stddev.log()
    else:
        _, log_std, _ = model.actor.get_action_dist_params(tensors)
    assert torch.allclose(log_std, policy.log_std.expand_as(log_std), atol=1e-6)


def test_a_gaussian_in_unit_actions_is_stretched(tmp_path):
    """A student of TD3; PPO knows no such thing, and must neither change the action nor the deviation."""
    policy = student_on(OBSERVATIONS["box"], "gaussian", unscale=True)
    runtime, facts = _written(policy, tmp_path)
    batch = batch_of(OBSERVATIONS["box"])
    action = runtime(feed_of(policy, batch))["action"]
    _same(action, policy.predict(batch, deterministic=True)[0])
    _as_exact(action, policy, batch)
    assert facts["algorithm"] == "PPO"
    std = PPO.load(tmp_path / "policy.zip").policy.log_std.detach().exp().numpy()
    space = policy.action_space
    np.testing.assert_allclose(std, policy.log_std.exp().numpy() * (space.high - space.low) / 2, rtol=1e-5)


LEARNERS = [("box", family, False) for family in FAMILIES]
LEARNERS += [("numbers by key", "squashed", False), ("numbers by key", "gaussian", False)]
LEARNERS += [("all by key", "gaussian", False), ("all by key", "squashed", False), ("image last", "categorical", False)]
LEARNERS += [("discrete", "squashed", False), ("choices", "multi", False), ("integers", "bernoulli", False)]


@pytest.mark.parametrize(("space", "family", "masked"), LEARNERS)
def test_goes_on_learning(tmp_path, space, family, masked):
    policy = student_on(OBSERVATIONS[space], family, masked=masked)
    _, facts = _written(policy, tmp_path)
    env = DummyVecEnv([lambda: Spaces(policy.observation_space, policy.action_space)])
    if "vecnormalize.pkl" in facts["files"]:
        env = VecNormalize.load(tmp_path / "vecnormalize.pkl", env)
    algorithm = facts["algorithm"]
    model = ALGORITHMS[algorithm].load(tmp_path / "policy.zip", **SHORT[algorithm])
    model.set_env(env)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(32)
    after = model.policy.state_dict()
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} >= _trained(model)
    for name in after:
        if "features_extractor" in name:
            assert torch.equal(after[name], before[name])  # the normaliser stays


def _trained(model):
    """Weights that every step of training moves: the first layer's of actor and critic."""
    prefix = "actor.mu" if isinstance(model, SAC) else "action_net"
    critic = "critic.qf0.0" if isinstance(model, SAC) else "value_net"
    return {f"{prefix}.weight", f"{critic}.weight"}


@pytest.mark.parametrize("kind", MAKERS)
def test_masked_students_go_on_learning_in_masks(tmp_path, kind):
    env = MAKERS[kind]()
    family = {"discrete": "categorical", "multi_discrete": "multi", "multi_binary": "bernoulli"}[kind]
    actions = env.action_space
    policy = _sized(student_on(env.observation_space, family, masked=True, action_space=actions), actions)
    _written(policy, tmp_path)
    venv = VecNormalize.load(tmp_path / "vecnormalize.pkl", DummyVecEnv([lambda: env]))
    model = MaskablePPO.load(tmp_path / "policy.zip", env=venv, **SHORT["MaskablePPO"])
    before = model.policy.action_net.weight.clone()
    model.learn(32)
    assert not torch.equal(before, model.policy.action_net.weight)


def _sized(policy, space):
    """The student with as many outputs as the space has choices."""
    from policykd.loss.distributions import Bernoulli, Categorical, MultiCategorical

    distribution = (
        Categorical(int(space.n)) if isinstance(space, spaces.Discrete)
        else Bernoulli(int(space.n)) if isinstance(space, spaces.MultiBinary)
        else MultiCategorical(tuple(int(n) for n in space.nvec))
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    weight, _ = policy.layers[-1]
    last = (torch.randn(len(weight), distribution.n_means, generator=generator), torch.zeros(distribution.n_means))
    return replace(policy, layers=(*policy.layers[:-1], last), distribution=distribution)


def test_opens_in_a_process_without_policykd(tmp_path):
    space = OBSERVATIONS["box"]
    policy = student_on(space, "squashed")
    _written(policy, tmp_path)
    batch = batch_of(space)
    np.save(tmp_path / "batch.npy", batch)
    code = (
        "import sys, numpy as np, gymnasium as gym\n"
        "sys.modules['policykd'] = None\n"
        "from stable_baselines3 import SAC\n"
        "from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize\n"
        "class Env(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-5.0, 5.0, (3,), np.float32)\n"
        "    action_space = gym.spaces.Box(np.float32([-3, -2]), np.float32([2, 4]))\n"
        "env = VecNormalize.load('vecnormalize.pkl', DummyVecEnv([Env]))\n"
        "model = SAC.load('policy.zip', env=env)\n"
        "action, _ = model.predict(env.normalize_obs(np.load('batch.npy')), deterministic=True)\n"
        "np.save('action.npy', action)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    _same(np.load(tmp_path / "action.npy"), policy.predict(batch, deterministic=True)[0])


def test_opens_in_a_process_that_has_policykd(tmp_path):
    space = OBSERVATIONS["image last"]
    policy = student_on(space, "gaussian")
    _written(policy, tmp_path)
    batch = batch_of(space)
    np.save(tmp_path / "batch.npy", batch)
    code = (
        "import numpy as np\n"
        "from stable_baselines3 import PPO\n"
        f"model = PPO.load({str(tmp_path / 'policy.zip')!r})\n"
        f"action, _ = model.predict(np.load({str(tmp_path / 'batch.npy')!r}), deterministic=True)\n"
        f"np.save({str(tmp_path / 'action.npy')!r}, action)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    _same(np.load(tmp_path / "action.npy"), policy.predict(batch, deterministic=True)[0])


BACK = [(space, family, False) for space in PLAIN for family in FAMILIES]
BACK += [("box", family, True) for family in ("categorical", "multi", "bernoulli")]


@pytest.mark.parametrize(("space", "family", "masked"), BACK)
def test_the_safe_reader_gives_the_student_back(tmp_path, space, family, masked):
    policy = student_on(OBSERVATIONS[space], family, masked=masked)
    _written(policy, tmp_path)
    teacher = load_teacher(tmp_path / "policy.zip", vec_normalize=tmp_path / "vecnormalize.pkl")
    batch = batch_of(OBSERVATIONS[space])
    if space in ("float64", "numbers by key"):  # a student rounds them to float32, VecNormalize does not
        batch = {key: np.float32(part) for key, part in batch.items()} if isinstance(batch, dict) else np.float32(batch)
    _same(teacher.predict(batch, deterministic=True)[0], policy.predict(batch, deterministic=True)[0])


def test_our_features_are_read_back_only_when_trusted(tmp_path):
    policy = student_on(OBSERVATIONS["choices"], "squashed")
    _written(policy, tmp_path)
    with pytest.raises(InputError, match="StudentFeatures"):
        load_teacher(tmp_path / "policy.zip")
    batch = batch_of(OBSERVATIONS["choices"])
    teacher = load_teacher(tmp_path / "policy.zip", trust=True)
    _same(teacher.predict(batch, deterministic=True)[0], policy.predict(batch, deterministic=True)[0])


def test_an_identity_needs_no_statistics(tmp_path):
    for space in ("box", "discrete", "bits"):
        policy = student_on(OBSERVATIONS[space], "gaussian")
        n = len(policy.normaliser.mean)
        policy = replace(policy, normaliser=Normaliser(np.zeros(n, "f4"), np.ones(n, "f4"), limit=5.0))
        runtime, facts = _written(policy, tmp_path)
        assert facts["files"] == ["policy.zip"]
        assert facts["plain"]
        batch = np.clip(batch_of(OBSERVATIONS[space]), -5, 5)
        _same(runtime(feed_of(policy, batch))["action"], policy.predict(batch, deterministic=True)[0])
        (tmp_path / "policy.zip").unlink()


def test_a_tighter_limit_is_no_identity(tmp_path):
    policy = student_on(OBSERVATIONS["box"], "gaussian")
    policy = replace(policy, normaliser=Normaliser(np.zeros(3, "f4"), np.ones(3, "f4"), limit=4.9))
    _, facts = _written(policy, tmp_path)
    assert facts["normalised"] == ["obs"]


def test_what_hardly_moves_keeps_its_scale(tmp_path):
    """1 / scale^2 below VecNormalize's usual epsilon of 1e-8."""
    policy = student_on(OBSERVATIONS["matrix"], "gaussian")
    scale = np.array([1e7, 1e4, 1.0, 1e-3, 3.3, 1e5], np.float32)
    policy = replace(policy, normaliser=Normaliser(np.zeros(6, "f4"), scale, limit=10.0))
    runtime, _ = _written(policy, tmp_path)
    env = DummyVecEnv([lambda: Spaces(policy.observation_space, policy.action_space)])
    assert (VecNormalize.load(tmp_path / "vecnormalize.pkl", env).obs_rms.var > 0).all()
    batch = batch_of(OBSERVATIONS["matrix"]) / scale.reshape(2, 3)
    _same(runtime(feed_of(policy, batch))["action"], policy.predict(batch, deterministic=True)[0])


def test_training_leaves_the_statistics_unless_asked(tmp_path):
    policy = student_on(OBSERVATIONS["box"], "gaussian")
    _written(policy, tmp_path)
    env = VecNormalize.load(
        tmp_path / "vecnormalize.pkl", DummyVecEnv([lambda: Spaces(policy.observation_space, policy.action_space)])
    )
    assert (env.training, env.norm_obs, env.norm_reward) == (False, True, False)
    mean = env.obs_rms.mean.copy()
    env.reset()
    assert np.array_equal(env.obs_rms.mean, mean)
    env.training = True
    env.reset()
    assert not np.array_equal(env.obs_rms.mean, mean)
    assert np.allclose(env.obs_rms.mean, mean, atol=1e-3)  # as if 100,000 observations had been seen


def test_equal_students_give_equal_bytes_without_paths(tmp_path):
    import base64
    import re
    import zipfile

    for space in ("box", "all by key"):
        for name in ("one", "two"):
            (tmp_path / name).mkdir(exist_ok=True)
            _written(student_on(OBSERVATIONS[space], "gaussian"), tmp_path / name)
        for path in (tmp_path / "one").iterdir():
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        with zipfile.ZipFile(tmp_path / "one" / "policy.zip") as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
            serialized = re.findall(r'":serialized:": "([^"]+)"', archive.read("data").decode())
        content += b"".join(base64.b64decode(text) for text in serialized)
        assert b"site-packages" not in content
        assert b"Nowhere" not in content  # the environment that it was built with


def test_writing_leaves_the_callers_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    sb3_zip.write(graph_of(student_on(OBSERVATIONS["box"], "squashed")), tmp_path, Options())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_refuses_observations_that_sb3_has_no_place_for(name):
    with pytest.raises(InputError, match="--to sb3: ") as error:
        sb3_zip.check(graph_of(student_on(ELSEWHERE[name])), Options())
    assert "\n" not in str(error.value)
    assert "choose another target" in str(error.value)


ACTIONS = {
    "from -1": ("categorical", spaces.Discrete(3, start=-1), "start at"),
    "from 1": ("multi", spaces.MultiDiscrete([2, 3], start=[1, 0]), "start at"),
    "a matrix of bits": ("bernoulli", spaces.MultiBinary([2, 2]), "no plain list"),
    "unbounded": ("gaussian", spaces.Box(-np.inf, np.inf, (2,), np.float32), "infinite bounds"),
}


@pytest.mark.parametrize(("family", "space", "words"), ACTIONS.values(), ids=ACTIONS)
def test_refuses_actions_that_sb3_has_no_place_for(family, space, words):
    policy = student_on(OBSERVATIONS["box"], family, action_space=space)
    with pytest.raises(InputError, match=words) as error:
        sb3_zip.check(graph_of(policy), Options())
    assert "\n" not in str(error.value)


def test_refuses_images_of_both_orders():
    space = spaces.Dict({"a": OBSERVATIONS["image first"], "b": OBSERVATIONS["image last"]})
    with pytest.raises(InputError, match="channels first"):
        sb3_zip.check(graph_of(student_on(space)), Options())


@pytest.mark.parametrize("option", ["stochastic", "with_distribution"])
def test_refuses_noise_and_distributions(option):
    with pytest.raises(InputError, match="--stochastic") as error:
        sb3_zip.check(graph_of(student_on(OBSERVATIONS["box"]), **{option: True}), Options())
    assert "\n" not in str(error.value)


def test_a_damaged_export_is_one_line(tmp_path):
    policy = student_on(OBSERVATIONS["box"])
    _, facts = _written(policy, tmp_path)
    contract = interface_of(graph_of(policy))
    for changes, words in (({"algorithm": "ARS"}, "not known"), ({"algorithm": "SAC"}, "cannot open")):
        with pytest.raises(InputError, match=words) as error:
            sb3_zip.load(tmp_path, contract, facts | changes)
        assert "\n" not in str(error.value)
    (tmp_path / "vecnormalize.pkl").write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"VecNormalize\.load cannot open it"):
        sb3_zip.load(tmp_path, contract, facts)
    (tmp_path / "policy.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"PPO\.load cannot open it"):
        sb3_zip.load(tmp_path, contract, facts)


def test_features_are_where_zips_look_for_them():
    assert (
        f"{StudentFeatures.__module__}.{StudentFeatures.__qualname__}"
        == "policykd.exports.sb3_policies.StudentFeatures"
    )
