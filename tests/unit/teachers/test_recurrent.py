"""A RecurrentPPO teacher computes what sb3-contrib computes, step by step, over episodes that begin at odd times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO

from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from policykd.teachers.recurrent import NOTE, RecurrentTeacher, build_recurrent
from policykd.teachers.sb3zip import read_zip
from tests.support.comparing import trapped
from tests.support.matrix import shake
from tests.support.teachers import Spaces, box, observations

BATCH, STEPS = 8, 32  # 256 observations
CASES: dict[str, tuple[spaces.Space[Any], spaces.Space[Any], dict[str, Any]]] = {
    "separate": (box(4), spaces.Discrete(3), {}),
    "shared": (box(4), spaces.Discrete(3), {"shared_lstm": True, "enable_critic_lstm": False}),
    "no-critic-lstm": (
        box(4),
        box(2, low=-0.5, high=0.5),
        {"enable_critic_lstm": False, "net_arch": {"pi": [7], "vf": [3]}},
    ),
    "deep": (box(2, 3), spaces.MultiDiscrete([2, 3]), {"n_lstm_layers": 3, "activation_fn": torch.nn.ReLU}),
    "bare": (spaces.Discrete(5), spaces.MultiBinary(3), {"net_arch": [], "lstm_kwargs": {"bias": False}}),
}


def make(case: str, **more: Any) -> Any:
    observation_space, action_space, kwargs = CASES[case]
    kwargs = {"lstm_hidden_size": 12, **kwargs, **more}
    env = Spaces(observation_space, action_space)
    few = {"n_steps": 8, "batch_size": 8, "n_epochs": 2}
    model = RecurrentPPO("MlpLstmPolicy", env, seed=1, device="cpu", policy_kwargs=kwargs, **few)
    shake(model, 0.3)
    if not isinstance(action_space, spaces.MultiBinary):  # sb3-contrib 2.9 cannot train on those with a memory
        model.learn(16)
    return model


@pytest.fixture(params=["file", "live"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Teacher]:
    def from_file(model: Any) -> Teacher:
        model.save(tmp_path / "model.zip")
        with trapped():
            return load_teacher(tmp_path / "model.zip")

    return from_file if request.param == "file" else from_model


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_sb3(case: str, load: Callable[[Any], Teacher]) -> None:
    model = make(case)
    teacher = load(model)
    assert isinstance(teacher, RecurrentTeacher) and teacher.recurrent and teacher.info.algo == "recurrent_ppo"
    rng = np.random.default_rng(0)
    theirs_state, ours_state, changed = None, None, 0
    memory = teacher.initial_state(BATCH)
    for t in range(STEPS):
        seen = observations(teacher.observation_space, BATCH, seed=t)
        start = rng.random(BATCH) < 0.2 if t else np.ones(BATCH, np.bool_)
        before = tuple(torch.from_numpy(part) for part in ours_state) if ours_state else memory
        theirs, theirs_state = model.predict(seen, theirs_state, start, deterministic=True)
        ours, ours_state = teacher.predict(seen, ours_state, start, deterministic=True)
        assert np.array_equal(ours, theirs)
        assert all(np.array_equal(a, b) for a, b in zip(ours_state, theirs_state, strict=True))
        params, memory = teacher.step(torch.from_numpy(seen), memory, torch.from_numpy(start))
        assert all(np.array_equal(a, b) for a, b in zip(memory, theirs_state, strict=True))
        with torch.no_grad():
            given = torch.from_numpy(start).float()
            expected, _ = model.policy.get_distribution(model.policy.obs_to_tensor(seen)[0], before, given)
        action = expected.mode()
        torch.testing.assert_close(teacher.distribution.log_prob(params, action), expected.log_prob(action))
        changed += int((np.abs(ours_state[0]) > 1e-3).any())
    assert changed == STEPS


def test_the_memory_matters_and_one_observation_is_a_batch_of_one() -> None:
    model = make("separate")
    teacher = from_model(model)
    state, theirs = None, None
    for t in range(8):
        seen = observations(teacher.observation_space, 1, seed=t)[0]
        action, state = teacher.predict(seen, state, np.array([t == 0]), deterministic=True)
        expected, theirs = model.predict(seen, theirs, np.array([t == 0]), deterministic=True)
        assert action.shape == expected.shape == () and action == expected
    assert state is not None
    batch = torch.from_numpy(seen[None])
    remembered = tuple(torch.from_numpy(part) for part in state)
    here, _ = teacher.step(batch, remembered, torch.tensor([False]))
    forgotten, _ = teacher.step(batch, remembered, torch.tensor([True]))
    fresh, _ = teacher.step(batch, teacher.initial_state(1), torch.tensor([False]))
    assert torch.equal(forgotten, fresh) and not torch.allclose(here, fresh)


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    model = make("no-critic-lstm")
    model.save(tmp_path / "model.zip")
    teacher = load_teacher(tmp_path / "model.zip")
    assert teacher.fingerprint == from_model(model).fingerprint
    assert teacher.info.layers == ((4, 12), (12, 7), (7, 2))
    lstm = 4 * 12 * (4 + 12)
    assert teacher.info.footprint.params == lstm + 2 * 4 * 12 + 12 * 7 + 7 + 7 * 2 + 2
    assert teacher.info.footprint.macs == lstm + 12 * 7 + 7 * 2
    assert NOTE in teacher.info.notes
    for parameter in model.policy.lstm_actor.parameters():
        parameter.data.add_(1e-3)
    assert from_model(model).fingerprint != teacher.fingerprint
    moved = teacher.to("cpu").with_info(notes=())
    assert isinstance(moved, RecurrentTeacher) and moved.fingerprint == teacher.fingerprint


def test_an_observation_alone_is_refused() -> None:
    teacher = from_model(make("separate"))
    with pytest.raises(InputError, match="memory"):
        teacher.distribution_params(torch.zeros(2, 4))
    zeros = np.zeros((2, 4), np.float32)
    with pytest.raises(InputError, match=r"expected \[\(1, 2, 12\), \(1, 2, 12\)\]"):
        teacher.predict(zeros, (np.zeros((1, 3, 12)), np.zeros((1, 3, 12))))
    with pytest.raises(InputError, match="episode_start has 3"):
        teacher.predict(zeros, None, np.zeros(3))
    with pytest.raises(InputError, match="without action masks"):
        teacher.predict(zeros, action_masks=np.ones((2, 3)))


@pytest.mark.parametrize(
    ("lstm_kwargs", "part"), [({"bidirectional": True}, "no plain LSTM"), ({"proj_size": 5}, "no plain LSTM")]
)
def test_other_memories_are_refused(lstm_kwargs: dict[str, Any], part: str, tmp_path: Path) -> None:
    from torch import nn

    make("separate").save(tmp_path / "model.zip")
    spec, _ = read_zip(tmp_path / "model.zip")
    odd = nn.LSTM(4, 12, **lstm_kwargs).state_dict()
    weights = {key: value for key, value in spec.weights.items() if "lstm_actor" not in key}
    weights |= {f"lstm_actor.{key}": value.numpy() for key, value in odd.items()}
    with pytest.raises(InputError, match=part):
        build_recurrent(replace(spec, weights=weights))
    for key, value, text in (
        ("weight_hh_l0", np.zeros((48, 11), np.float32), "has shape"),
        ("weight_hh_l0", np.float32(1.0), "of shape"),
        ("weight_hh_l0", np.zeros((0, 0), np.float32), "of shape"),
        ("weight_ih_l0", np.zeros(48, np.float32), "of shape"),
        ("bias_ih_l0", np.zeros(47, np.float32), "has shape"),
        ("weight_ih_l0", np.zeros((48, 3), np.float32), "takes 3 inputs"),
        ("weight_ih_l0", np.full((48, 4), 1e300), "single precision"),
    ):
        with pytest.raises(InputError, match=text):
            build_recurrent(replace(spec, weights={**spec.weights, f"lstm_actor.{key}": value}))
    without = {key: value for key, value in spec.weights.items() if "lstm_actor" not in key}
    with pytest.raises(InputError, match="no lstm_actor"):
        build_recurrent(replace(spec, weights=without))


@pytest.mark.parametrize("kind", ["image", "dict"])
def test_extractors_come_before_the_memory(kind: str, tmp_path: Path) -> None:
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    space, policy = (
        (image, "CnnLstmPolicy")
        if kind == "image"
        else (spaces.Dict({"a": box(2), "b": spaces.Discrete(3)}), "MultiInputLstmPolicy")
    )
    settings = {"lstm_hidden_size": 4}
    model = RecurrentPPO(policy, Spaces(space, spaces.Discrete(2)), device="cpu", policy_kwargs=settings, seed=1)
    model.save(tmp_path / "model.zip")
    teacher = load_teacher(tmp_path / "model.zip")
    theirs: Any = None
    ours: Any = None
    start = np.ones(8, bool)
    for step in range(5):
        batch = observations(space, 8, seed=step)
        expected, theirs = model.predict(batch, theirs, start, deterministic=True)
        actions, ours = teacher.predict(batch, ours, start, deterministic=True)
        np.testing.assert_array_equal(actions, expected)
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, other)
        start = np.arange(8) == step
