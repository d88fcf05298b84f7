"""ONNX files as teachers: the same parameters as the teacher that was exported, and cards that say what is wrong."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from onnx import helper
from torch import nn

from policykd import ConfigError, InputError, load_teacher
from policykd.loss.distributions import Categorical, DiagGaussian, SquashedDiagGaussian
from tests.security.onnx_inputs import CARD, onnx_inputs
from tests.support.onnx_files import card_of, model_of, onnx_of, weight, write
from tests.support.teachers import SHARED


def _close(one, two):
    assert one.shape == two.shape
    assert float((one - two).abs().max()) <= 1e-6 * float(two.abs().max())


def _observations(teacher, n=700):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, *teacher.observation_space.shape)).astype("f4"))


SOURCES = ["builtin:cartpole", "builtin:lunarlander", "builtin:pendulum", "sac/Pendulum-v1_1", "dqn/MountainCar-v0_1",
           "a2c/BipedalWalker-v3_1", "ppo/LunarLander-v2_1"]  # fmt: skip


@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("source", SOURCES)
def test_gives_the_parameters_of_the_teacher_that_was_exported(tmp_path, source, batch):
    path = source if source.startswith("builtin:") else SHARED / source
    if not source.startswith("builtin:") and not path.is_dir():
        pytest.skip(f"no {path}")
    teacher = load_teacher(path)
    model = onnx_of(teacher, batch)
    onnx = load_teacher(write(tmp_path / "policy.onnx", model, card_of(teacher, model)))
    observations = _observations(teacher)
    _close(onnx.distribution_params(observations), teacher.distribution_params(observations))
    assert onnx.distribution == teacher.distribution
    assert onnx.action_map == teacher.action_map
    assert (onnx.value_teacher, onnx.deterministic_teacher) == (teacher.value_teacher, teacher.deterministic_teacher)
    inside = 2 * int(np.prod(teacher.observation_space.shape)) if teacher.normalizer else 0
    assert onnx.info.footprint.params == teacher.info.footprint.params + inside
    assert onnx.info.footprint.macs == teacher.info.footprint.macs
    assert onnx.info.layers == teacher.info.layers
    assert onnx.info.env_id == teacher.info.env_id
    assert any("one by one" in note for note in onnx.info.notes) == (batch == 1)
    for n in (1, 3):
        ours, theirs = (t.predict(observations[:n].numpy(), deterministic=True)[0] for t in (onnx, teacher))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


class Agent(nn.Module):
    """As CleanRL writes it for continuous actions: layers with orthogonal weights, log_std a parameter, a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor_mean = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
        self.actor_logstd = nn.Parameter(torch.full((1, 2), -0.5))

    def forward(self, x):
        mean = self.actor_mean(x)
        return mean, self.actor_logstd.expand_as(mean)


class Pixels(nn.Module):
    """As CleanRL writes it for Atari: bytes, divided inside."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(4, 8, 8, 4), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten())
        self.actor = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x):
        return self.actor(self.network(x / 255.0))


def _exported(agent, path, batch, names, dynamo=False, shape=(3,), dtype=torch.float32):
    """What torch.onnx.export writes, by tracing or by torch.export."""
    example = torch.zeros(2 if batch is None else batch, *shape, dtype=dtype)
    free: dict[str, Any] = {}
    if batch is None and dynamo:
        free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    elif batch is None:
        free = {"dynamic_axes": {name: {0: "batch"} for name in ("obs", *names)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(agent, (example,), str(path), dynamo=dynamo, input_names=["obs"], output_names=names,
                          external_data=False, verbose=False, **free)  # fmt: skip


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "dynamo"])
@pytest.mark.parametrize("batch", [None, 1])
def test_a_module_that_torch_exported(tmp_path, batch, dynamo):
    torch.manual_seed(0)
    agent = Agent().eval()
    path = tmp_path / "agent.onnx"
    _exported(agent, path, batch, ["mean", "log_std"], dynamo)
    actions = {"type": "Box", "shape": [2], "low": [-1.0, -2.0], "high": 3.0}
    card = {"action_space": actions, "outputs": {"mean": "mean", "log_std": "log_std"}}
    (tmp_path / "agent.onnx.yaml").write_text(yaml.safe_dump(card))
    (tmp_path / "agent.yaml").write_text("wrong: the other one is read")
    teacher = load_teacher(path)
    observations = _observations(teacher, 600)
    with torch.no_grad():
        _close(teacher.distribution_params(observations), torch.cat(agent(observations), -1))
    assert teacher.distribution == DiagGaussian(2)
    assert teacher.action_map.kind == "clip"
    assert teacher.action_space == spaces.Box(np.array([-1, -2], "f4"), np.array([3, 3], "f4"))
    assert teacher.info.footprint.params == sum(p.numel() for p in agent.actor_mean.parameters())
    assert teacher.fingerprint == load_teacher(path).fingerprint


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "dynamo"])
def test_a_module_that_takes_bytes(tmp_path, dynamo):
    torch.manual_seed(0)
    agent, path = Pixels().eval(), tmp_path / "agent.onnx"
    _exported(agent, path, None, ["logits"], dynamo, (4, 36, 36), torch.uint8)
    card = {"action_space": {"type": "Discrete", "n": 3}, "outputs": {"logits": "logits"}}
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(card))
    teacher = load_teacher(path)
    assert teacher.observation_space == spaces.Box(0, 255, (4, 36, 36), np.uint8)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 36, 36)).astype(np.uint8)
    with torch.no_grad():
        expected = agent(torch.from_numpy(pixels))
    _close(teacher.distribution_params(torch.from_numpy(pixels)), expected)
    assert (teacher.predict(pixels, deterministic=True)[0] == expected.argmax(1).numpy()).all()
    box = {"observation_space": {"shape": [4, 36, 36], "low": -5, "high": 200}}
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(card | box))
    assert load_teacher(path).observation_space == spaces.Box(0, 200, (4, 36, 36), np.uint8)


def test_integers_are_not_divided(tmp_path):
    nodes = [
        helper.make_node("Gemm", ["obs", "v"], ["before"]),
        helper.make_node("Cast", ["before"], ["whole"], to=7),
        helper.make_node("Div", ["whole", "two"], ["half"]),
        helper.make_node("Cast", ["half"], ["logits"], to=1),
    ]
    weights = [weight("v", np.ones((4, 2))), weight("two", [[2, 2]], np.int64)]
    with pytest.raises(InputError, match="divides integers"):
        load_teacher(write(tmp_path / "a.onnx", model_of(nodes, weights, ["n", 4], ["logits"]), CARD))


def test_a_convolutional_policy(tmp_path):
    rng = np.random.default_rng(0)
    kernel, last = rng.normal(size=(4, 1, 3, 3)).astype("f4"), rng.normal(size=(36, 2)).astype("f4")
    nodes = [
        helper.make_node("Conv", ["obs", "k"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["logits"]),
    ]
    model = model_of(nodes, [weight("k", kernel), weight("v", last)], ["n", 1, 5, 5], ["logits"])
    teacher = load_teacher(write(tmp_path / "a.onnx", model, CARD))
    x = torch.randn(300, 1, 5, 5)
    expected = torch.relu(nn.functional.conv2d(x, torch.from_numpy(kernel))).flatten(1) @ torch.from_numpy(last)
    torch.testing.assert_close(teacher.distribution_params(x), expected)
    assert (teacher.info.footprint.params, teacher.info.footprint.macs) == (36 + 72, 36 * 9 + 72)


GOOD = next(onnx_inputs())[1]
BOX = {"type": "Box", "shape": [2], "low": -2.0, "high": 2.0}


@pytest.mark.parametrize(
    ("change", "kind", "distribution", "unscaled"),
    [
        ({}, "policy", Categorical(2), False),
        ({"outputs": {"q_values": "logits"}}, "value", Categorical(2), False),
        ({"outputs": {"action": "logits"}, "action_space": BOX}, "deterministic", DiagGaussian(2), False),
        (
            {"outputs": {"action": "logits"}, "action_space": BOX, "unscale": True},
            "deterministic",
            DiagGaussian(2),
            True,
        ),
        ({"action_space": {"type": "MultiBinary", "n": 2}, "distribution": "bernoulli"}, "policy", None, False),
        ({"action_space": {"type": "MultiDiscrete", "nvec": [1, 1]}}, "policy", None, False),
        ({"observation_space": {"shape": [4], "low": -1, "high": [1, 1, 2, 2]}}, "policy", Categorical(2), False),
    ],
)
def test_the_card_says_what_the_outputs_are(tmp_path, change, kind, distribution, unscaled):
    teacher = load_teacher(write(tmp_path / "a.onnx", GOOD, CARD | change))
    assert teacher.value_teacher == (kind == "value")
    assert teacher.deterministic_teacher == (kind == "deterministic")
    assert distribution in (None, teacher.distribution)
    assert (teacher.action_map.kind == "unscale") == unscaled
    params = teacher.distribution_params(torch.zeros(3, 4))
    assert params.shape == (3, teacher.distribution.n_params)
    if kind == "deterministic":
        torch.testing.assert_close(params[:, 2:].exp(), torch.full((3, 2), 0.1 if unscaled else 0.2))


def test_a_squashed_policy_is_unscaled(tmp_path):
    teacher = load_teacher("builtin:pendulum")
    model = onnx_of(teacher)
    card = card_of(teacher, model)
    by_flag = load_teacher(write(tmp_path / "a.onnx", model, card))
    del card["squashed"]
    by_name = load_teacher(write(tmp_path / "b.onnx", model, card | {"distribution": "squashed_gaussian"}))
    plain = load_teacher(write(tmp_path / "c.onnx", model, card))
    assert by_flag.distribution == by_name.distribution == SquashedDiagGaussian(1)
    assert by_flag.action_map.kind == by_name.action_map.kind == "unscale"
    assert plain.distribution == DiagGaussian(1)
    assert len({by_flag.fingerprint, plain.fingerprint}) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation_spaces": {}}, ["observation_spaces", "unknown key", "did you mean observation_space"]),
        ({"outputs": {"logit": "logits"}}, ["outputs.logit", "did you mean outputs.logits"]),
        ({"outputs": {}}, ["outputs", "found none", "expected mean and log_std"]),
        ({"outputs": {"mean": "logits"}}, ["outputs", "found mean"]),
        ({"outputs": {"mean": "x", "log_std": "x"}, "action_space": BOX}, ["one output", "export them apart"]),
        ({"outputs": {"logits": "other"}}, ["no output 'other'", "'logits'"]),
        ({"outputs": {"action": "logits"}}, ["actions of a Discrete", "logits or q_values"]),
        ({"action_space": BOX}, ["actions of a Box", "mean and log_std, or action"]),
        ({"action_space": {"type": "Discrete", "n": 3}}, ["2 entries", "needs 3"]),
        ({"action_space": {"type": "Discrete", "n": -1}}, ["action_space.n", "found -1", "from 1 to"]),
        ({"action_space": {"type": "Discrete", "n": "2"}}, ["action_space.n", "the text '2'"]),
        ({"action_space": {"type": "Discrete"}}, ["action_space", "a Discrete with nothing", "expected n"]),
        ({"action_space": {"type": "Discrete", "n": 2, "start": [1]}}, ["action_space.start", "one whole number"]),
        ({"action_space": {"type": "MultiDiscrete", "nvec": [1, 1], "start": 1}}, ["action_space.start", "list of 2"]),
        ({"action_space": {"type": "MultiDiscrete", "nvec": [1, 1], "start": [1]}}, ["start", "found 1 numbers"]),
        ({"action_space": {"type": "MultiBinary", "n": 2, "start": 1}}, ["MultiBinary with n, start", "expected n"]),
        ({"action_space": {"type": "Discrete", "n": 2, "start": 2**40}}, ["action_space.start"]),
        ({"action_space": {"type": "Dict"}}, ["action_space.type", "found the text 'Dict'"]),
        ({"distribution": "gaussian"}, ["does not fit", "expected categorical"]),
        ({"squashed": True}, ["squashed", "mean and log_std"]),
        ({"unscale": True}, ["unscale is for Box"]),
        ({"env": "os:Evil-v0"}, ["os:Evil-v0", "would import code"]),
        ({"input": "state"}, ["no input 'state'", "'obs'"]),
        ({"observation_space": {"shape": [5]}}, ["(4,)", "(5,)"]),
        (
            {"observation_space": {"shape": [4], "low": [0.0, 1.0]}},
            ["observation_space.low", "2 numbers", "expected 4"],
        ),
        ({"observation_space": {"shape": [4], "low": 2, "high": 1}}, ["low is above high"]),
        ({"observation_space": {"shape": [1000, 1000]}}, ["observation_space.shape", "at most"]),
        ({"normalised_inside": False}, ["normalised_inside is false", "vec_normalize"]),
    ],
)
def test_a_wrong_card_is_refused_in_one_line(tmp_path, change, words):
    path = write(tmp_path / "a.onnx", GOOD, CARD | change)
    with pytest.raises(InputError) as refusal:
        load_teacher(path)
    text = str(refusal.value)
    assert "\n" not in text
    assert "a.yaml" in text or "a.onnx" in text
    for word in words:
        assert word in text, text


def test_all_mistakes_of_a_card_are_said_at_once(tmp_path):
    path = write(tmp_path / "a.onnx", GOOD, {"envv": "x", "outputs": {"logits": 3}})
    with pytest.raises(ConfigError) as refusal:
        load_teacher(path)
    assert len(refusal.value.problems) == 3


def test_without_a_card_it_says_what_to_write(tmp_path):
    path = write(tmp_path / "a.onnx", GOOD, None)
    with pytest.raises(InputError, match=r"needs a\.yaml beside it.*for example \{env: CartPole-v1") as refusal:
        load_teacher(path)
    example = str(refusal.value).split("for example ")[1].split(" (docs")[0].replace("NAME", "logits")
    (tmp_path / "a.yaml").write_text(example)
    assert load_teacher(path).info.env_id == "CartPole-v1"


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['touch hacked']", "- 1", "a: [", "env: a\nenv: b"])
def test_a_card_is_plain_data(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.onnx", GOOD, None)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml"):
        load_teacher(path)
    assert not (tmp_path / "hacked").exists()


def test_statistics_are_applied_once(tmp_path):
    statistics = tmp_path / "normalizer.json"
    statistics.write_text('{"format": 1, "mean": [1, 1, 1, 1], "var": [4, 4, 4, 4], "clip_obs": 10, "epsilon": 0}')
    raw = load_teacher(write(tmp_path / "a.onnx", GOOD, CARD))
    outside = write(tmp_path / "b.onnx", GOOD, CARD | {"normalised_inside": False})
    normalised = load_teacher(outside, vec_normalize=statistics)
    x = torch.randn(5, 4)
    torch.testing.assert_close(normalised.distribution_params(x), raw.distribution_params((x - 1) / 2))
    assert normalised.info.footprint.constants == 8
    with pytest.raises(InputError, match="applied as well"):
        load_teacher(tmp_path / "a.onnx", vec_normalize=statistics)


def test_an_id_that_the_user_gives_replaces_the_cards(tmp_path):
    path = write(tmp_path / "a.onnx", GOOD, CARD)
    assert load_teacher(path, env_id="Acrobot-v1").info.env_id == "Acrobot-v1"
    assert load_teacher(write(path, GOOD, {**CARD, "env": "LunarLander-v2"})).info.env_id == "LunarLander-v3"


def test_missing_packages_are_named(tmp_path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else real(name, *a))
    with pytest.raises(InputError, match=r"needs onnxruntime, not installed: pip install 'policykd\[onnx\]'"):
        load_teacher(write(tmp_path / "a.onnx", GOOD, CARD))


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("policykd.teachers.onnxio.read.MAX_BYTES", len(GOOD) - 1)
    with pytest.raises(InputError, match="larger than"):
        load_teacher(write(tmp_path / "a.onnx", GOOD, CARD))
