from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from torch import nn

from policykd.learn.train import settings as train_settings
from policykd.learn.train.settings import algorithm_class, algorithm_kwargs, policy_kwargs, policy_name
from policykd.spine.errors import InputError

ACTIONS = spaces.Box(-1.0, 1.0, (2,))


def test_every_algorithm_has_its_class() -> None:
    for algo in ("ppo", "a2c", "dqn", "sac", "td3", "ddpg", "trpo", "qrdqn", "tqc", "ars", "maskable_ppo"):
        assert algorithm_class(algo).__name__.lower() == algo.replace("_", "")


def test_a_missing_sb3_contrib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sb3_contrib", None)
    with pytest.raises(InputError, match="pip install sb3-contrib"):
        algorithm_class("tqc")


def test_values_are_built() -> None:
    built = algorithm_kwargs("ppo", {"learning_rate": {"linear": 0.5}, "clip_range": 0.1, "n_steps": 8}, ACTIONS)
    assert [built["learning_rate"](left) for left in (1.0, 0.5, 0.0)] == [0.5, 0.25, 0.0]
    assert (built["clip_range"], built["n_steps"]) == (0.1, 8)
    built = algorithm_kwargs("td3", {"action_noise": {"normal": 0.1}, "train_freq": [4, "episode"]}, ACTIONS)
    assert built["train_freq"] == (4, "episode")
    assert built["action_noise"]().shape == (2,)
    np.testing.assert_array_equal(built["action_noise"]._sigma, [0.1, 0.1])
    assert algorithm_kwargs("sac", {"ent_coef": "auto_0.1"}, ACTIONS) == {"ent_coef": "auto_0.1"}


@pytest.mark.parametrize(
    ("algo", "given", "message"),
    [
        (
            "ppo",
            {"learnig_rate": 0.1},
            "hyperparameters.learnig_rate: ppo has no such parameter; did you mean learning_rate",
        ),
        ("ppo", {"zzz": 1}, "known: learning_rate, n_steps"),
        ("ppo", {"buffer_size": 1}, "ppo has no such parameter"),
        ("ppo", {"seed": 1}, "not given here; set seed"),
        ("ppo", {"policy": "MlpPolicy"}, "follows from the observation space"),
        ("ppo", {"policy_kwargs": {}}, "set policy_kwargs beside hyperparameters"),
        ("sac", {"replay_buffer_class": "os.system"}, "cannot name a class"),
        ("ppo", {"learning_rate": "1e-3"}, "is text; write a number or {linear: number}"),
        ("ppo", {"gamma": "0.9"}, "is text; write a number"),
        ("ppo", {"learning_rate": {"cosine": 0.1}}, "expected {linear: number}"),
        ("ppo", {"learning_rate": {"linear": True}}, "expected {linear: number}"),
        ("td3", {"action_noise": {"normal": "x"}}, "expected {normal: number}"),
    ],
)
def test_wrong_hyperparameters(algo: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        algorithm_kwargs(algo, given, ACTIONS)
    assert message in str(caught.value)


def test_policy_values_are_built() -> None:
    given = {"net_arch": {"pi": [8], "vf": [4, 4]}, "activation_fn": "relu", "log_std_init": -2}
    assert policy_kwargs("ppo", "MlpPolicy", given) == {**given, "activation_fn": nn.ReLU}
    assert given["activation_fn"] == "relu"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activation_fn": "nn.ReLU"}, "expected one of tanh, relu, elu"),
        ({"net_arhc": [8]}, "did you mean net_arch"),
        ({"net_arch": "[64, 64]"}, "expected widths from 1 to 4096"),
        ({"net_arch": [0]}, "expected widths from 1 to 4096"),
        ({"net_arch": {"pi": [10**6]}}, "expected widths from 1 to 4096"),
        ({"optimizer_class": "x"}, "cannot name a class"),
    ],
)
def test_wrong_policy_values(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        policy_kwargs("ppo", "MlpPolicy", given)
    assert message in str(caught.value)


def test_policy_follows_from_the_observations() -> None:
    vector, image = spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (84, 84, 1), np.uint8)
    several = spaces.Dict({"a": spaces.Discrete(2)})
    assert [policy_name("ppo", space) for space in (vector, image)] == ["MlpPolicy", "CnnPolicy"]
    assert [policy_name(algo, several) for algo in ("ppo", "sac")] == ["MultiInputPolicy"] * 2
    recurrent = [policy_name("recurrent_ppo", space) for space in (vector, image, several)]
    assert recurrent == ["MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"]
    with pytest.raises(InputError, match="FlattenObservation"):
        policy_name("ars", several)
    with pytest.raises(InputError, match="ars has no CnnPolicy"):
        policy_kwargs("ars", "CnnPolicy", {})


def test_all_parameters_that_are_set_elsewhere_exist() -> None:
    import inspect

    known = set(inspect.signature(algorithm_class("ppo").__init__).parameters) | {"n_envs"}
    assert set(train_settings._ELSEWHERE) <= known
