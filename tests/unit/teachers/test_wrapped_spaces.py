"""Wrapped policies on images, Dicts and one-hot observations, with masks, with a memory, and those of ARS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import ARS, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO

from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher
from policykd.teachers.recurrent import NOTE, RecurrentTeacher
from tests.support.extractors import Blurred, Mixed, OwnArs, Waves
from tests.support.masked import random_masks
from tests.support.matrix import DICT, IMAGE
from tests.support.teachers import Spaces, box, observations, refused

DISCRETE, BOX = spaces.Discrete(3), box(2, low=-2.0, high=0.5)


def _pairs(case: str, tmp_path: Path) -> tuple[Any, list[Teacher]]:
    """A trained model of a kind of its own, and its teachers: live, and from its zip after trust."""
    model = OTHERS[case]()
    model.policy.set_training_mode(False)
    model.save(tmp_path / "m.zip")
    refused(tmp_path / "m.zip", "--trust")
    return model, [load_teacher(model), load_teacher(tmp_path / "m.zip", trust=True)]


def _few(
    kind: Any, policy: Any, space: spaces.Space[Any], actions: spaces.Space[Any], extractor: Any, **more: Any
) -> Any:
    own = {"features_extractor_class": extractor} if extractor else {}
    settings = {"n_steps": 8, "batch_size": 8} if "PPO" in kind.__name__ else {}
    settings = {"learning_starts": 4, "buffer_size": 40, "batch_size": 4} if kind in (DQN, CrossQ) else settings
    model = kind(policy, Spaces(space, actions), device="cpu", seed=0, policy_kwargs=own, **settings, **more)
    return model.learn(16, **({"use_masking": False} if kind is MaskablePPO else {}))


OTHERS: dict[str, Any] = {
    "image": lambda: _few(PPO, "CnnPolicy", IMAGE, DISCRETE, Blurred),
    "dict": lambda: _few(PPO, "MultiInputPolicy", DICT, BOX, Mixed),
    "dict-dqn": lambda: _few(DQN, "MultiInputPolicy", DICT, DISCRETE, Mixed),
    "one-hot": lambda: _few(PPO, "MlpPolicy", spaces.MultiDiscrete([3, 4]), DISCRETE, Waves),
    "start": lambda: _few(PPO, "MlpPolicy", box(4), spaces.Discrete(3, start=2), Waves),
    "crossq": lambda: _few(CrossQ, "MlpPolicy", box(4), BOX, Waves),
    "ars": lambda: _few(ARS, OwnArs, box(4), BOX, None, n_delta=2),
    "ars-discrete": lambda: _few(ARS, OwnArs, box(4), DISCRETE, None, n_delta=2),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_observations_and_algorithms(case: str, tmp_path: Path) -> None:
    model, teachers = _pairs(case, tmp_path)
    batch = observations(model.observation_space, 64)
    expected, _ = model.predict(batch, deterministic=True)
    first = {key: value[0] for key, value in batch.items()} if isinstance(batch, dict) else batch[0]
    for teacher in teachers:
        np.testing.assert_allclose(teacher.predict(batch, deterministic=True)[0], expected, atol=1e-6)
        assert teacher.predict(first, deterministic=True)[0].shape == np.shape(expected[0])
        assert teacher.info.algo == case.partition("-")[0] or case not in ("crossq", "ars", "ars-discrete")
    assert teachers[0].fingerprint == teachers[1].fingerprint
    if case == "start":
        assert any("start at [2]" in note for note in teachers[0].info.notes)


def test_images_with_their_channels_last_are_turned_for_an_extractor_of_its_own() -> None:
    model = _few(PPO, "CnnPolicy", spaces.Box(0, 255, (36, 40, 3), np.uint8), DISCRETE, Blurred)
    space = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    batch = observations(space, 16)
    expected, _ = model.predict(batch, deterministic=True)
    np.testing.assert_array_equal(load_teacher(model).fitted(space).predict(batch, deterministic=True)[0], expected)


@pytest.mark.parametrize("actions", [DISCRETE, spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)], ids=str)
def test_masks_with_an_extractor_of_its_own(actions: spaces.Space[Any], tmp_path: Path) -> None:
    model = _few(MaskablePPO, "MlpPolicy", box(4), actions, Waves)
    model.save(tmp_path / "m.zip")
    batch, masks = observations(box(4), 64), random_masks(actions, 64)
    expected, _ = model.predict(batch, deterministic=True, action_masks=masks)
    for teacher in (load_teacher(model), load_teacher(tmp_path / "m.zip", trust=True)):
        assert teacher.masked
        np.testing.assert_array_equal(teacher.predict(batch, deterministic=True, action_masks=masks)[0], expected)


def test_a_memory_behind_an_extractor_of_its_own(tmp_path: Path) -> None:
    kwargs = {"features_extractor_class": Mixed, "lstm_hidden_size": 7, "n_lstm_layers": 2}
    model = RecurrentPPO("MultiInputLstmPolicy", Spaces(DICT, DISCRETE), device="cpu", n_steps=8, policy_kwargs=kwargs)
    model.learn(16).save(tmp_path / "m.zip")
    for teacher in (load_teacher(model), load_teacher(tmp_path / "m.zip", trust=True)):
        assert isinstance(teacher, RecurrentTeacher) and teacher.recurrent and NOTE in teacher.info.notes
        ours, theirs, start = None, None, np.ones(8, np.bool_)
        for step in range(6):
            batch = observations(DICT, 8, seed=step)
            expected, theirs = model.predict(batch, theirs, start, deterministic=True)
            actions, ours = teacher.predict(batch, ours, start, deterministic=True)
            np.testing.assert_array_equal(actions, expected)
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6)
            start = np.arange(8) == step
    assert teacher.info.footprint == load_teacher(model).info.footprint
