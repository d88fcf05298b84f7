"""A MaskablePPO teacher computes what sb3-contrib computes, under random masks, from zip and live model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO

from policykd.loss.masking import apply_mask
from policykd.rollout.masks import mask_branches
from policykd.spine.errors import InputError, NumericsError
from policykd.teachers.base import Teacher
from policykd.teachers.live import from_model
from policykd.teachers.load import load_teacher
from tests.support.comparing import trapped
from tests.support.masked import random_masks
from tests.support.matrix import shake
from tests.support.teachers import N_OBSERVATIONS, Spaces, box, observations

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(5),
    "multi": spaces.MultiDiscrete([3, 2, 4]),
    "bits": spaces.MultiBinary(4),
}


def make(name: str, **policy_kwargs: Any) -> Any:
    env = Spaces(box(4), SPACES[name])
    few = {"n_steps": 8, "batch_size": 8, "n_epochs": 2}
    model = MaskablePPO("MlpPolicy", env, seed=1, device="cpu", policy_kwargs=policy_kwargs, **few)
    shake(model, 0.3)
    model.learn(16, use_masking=False)
    return model


@pytest.fixture(params=["file", "live"])
def pair(request: pytest.FixtureRequest, space: str, tmp_path: Path) -> tuple[Teacher, Any]:
    model = make(space)
    if request.param == "live":
        return from_model(model), model
    model.save(tmp_path / "model.zip")
    with trapped():
        return load_teacher(tmp_path / "model.zip"), model


@pytest.mark.parametrize("space", SPACES)
def test_actions_and_parameters_are_those_of_sb3(space: str, pair: tuple[Teacher, Any]) -> None:
    teacher, model = pair
    assert teacher.masked and teacher.info.algo == "maskable_ppo" and teacher.info.activation == "tanh"
    seen, masks = observations(teacher.observation_space), random_masks(SPACES[space], N_OBSERVATIONS)
    for given in (masks, None):
        theirs, _ = model.predict(seen, deterministic=True, action_masks=given)
        ours, _ = teacher.predict(seen, deterministic=True, action_masks=given)
        assert np.array_equal(ours, theirs)
    one = teacher.predict(seen[0], deterministic=True, action_masks=masks[0])[0]
    assert np.array_equal(one, model.predict(seen[0], deterministic=True, action_masks=masks[0])[0])
    with torch.no_grad():
        raw = model.policy.action_net(
            model.policy.mlp_extractor.forward_actor(model.policy.extract_features(torch.from_numpy(seen)))
        )
        expected = raw[:, 1::2] - raw[:, 0::2] if space == "bits" else raw
        assert torch.equal(teacher.distribution_params(torch.from_numpy(seen)), expected)
        params = apply_mask(teacher.distribution, teacher.distribution_params(torch.from_numpy(seen)), masks)
        theirs = model.policy.get_distribution(torch.from_numpy(seen), action_masks=masks)
        action = theirs.mode()
        torch.testing.assert_close(teacher.distribution.log_prob(params, action), theirs.log_prob(action))
        torch.testing.assert_close(teacher.distribution.entropy(params), theirs.entropy(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_samples_are_allowed(space: str) -> None:
    teacher = from_model(make(space))
    sizes, masks = mask_branches(SPACES[space]), random_masks(SPACES[space], N_OBSERVATIONS)
    starts = np.cumsum((0, *sizes[:-1]))
    for _ in range(5):
        actions = teacher.predict(observations(teacher.observation_space), action_masks=masks)[0]
        chosen = starts + actions.reshape(N_OBSERVATIONS, -1)
        assert masks[np.arange(N_OBSERVATIONS)[:, None], chosen].all()


def test_file_and_live_model_give_one_fingerprint(tmp_path: Path) -> None:
    model = make("bits", net_arch=[7], activation_fn=torch.nn.ReLU)
    model.save(tmp_path / "model.zip")
    teacher = load_teacher(tmp_path / "model.zip")
    assert teacher.fingerprint == from_model(model).fingerprint
    assert teacher.info.layers == ((4, 7), (7, 8)) and teacher.distribution.n_params == 4


def test_a_wrong_mask_is_refused() -> None:
    teacher = from_model(make("discrete"))
    with pytest.raises(InputError, match=r"predict: the action mask has shape \(4,\)"):
        teacher.predict(np.zeros(4, np.float32), action_masks=np.ones(4, np.bool_))
    with pytest.raises(NumericsError, match="allows nothing"):
        teacher.predict(np.zeros(4, np.float32), action_masks=np.zeros(5, np.bool_))


@pytest.mark.parametrize("kind", ["image", "dict"])
def test_policies_with_extractors(kind: str, tmp_path: Path) -> None:
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    space = image if kind == "image" else spaces.Dict({"a": box(2), "b": spaces.Discrete(3)})
    policy = "CnnPolicy" if kind == "image" else "MultiInputPolicy"
    model = MaskablePPO(policy, Spaces(space, spaces.Discrete(4)), device="cpu", seed=1)
    model.save(tmp_path / "model.zip")
    batch = observations(space, 64)
    masks = np.random.default_rng(0).random((64, 4)) < 0.6
    masks[:, 1] = True
    expected, _ = model.predict(batch, deterministic=True, action_masks=masks)
    actions, _ = load_teacher(tmp_path / "model.zip").predict(batch, deterministic=True, action_masks=masks)
    np.testing.assert_array_equal(actions, expected)
