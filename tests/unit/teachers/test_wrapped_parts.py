"""Live models whose activation, sizes or bounds are not those of every day, and their zips after trust."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from policykd.learn.judging.judge import describe_teacher
from policykd.teachers.custom import make_custom_teacher
from policykd.teachers.load import load_teacher
from policykd.teachers.modelspec import UnsupportedPolicy
from tests.support.extractors import Waves
from tests.support.teachers import Spaces, box, members, observations, refused, write_zip

ACTIVATIONS: dict[str, Any] = {
    "partial": functools.partial(nn.LeakyReLU, 0.3),
    "hardswish": nn.Hardswish,
    "prelu": nn.PReLU,
    "function": lambda: nn.LeakyReLU(0.3),
}
MAX = np.finfo(np.float32).max


def model_of(kind: Any, observed: Any, actions: Any, **policy_kwargs: Any) -> Any:
    settings = {"learning_starts": 0, "buffer_size": 50} if kind in (DQN, SAC) else {"n_steps": 16, "batch_size": 16}
    kwargs = {"net_arch": [8], **policy_kwargs}
    return kind("MlpPolicy", Spaces(observed, actions), device="cpu", seed=0, policy_kwargs=kwargs, **settings)


@pytest.mark.parametrize("kind", [PPO, SAC])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_other_activations_are_wrapped_live_and_opened_after_trust(name: str, kind: Any, tmp_path: Path) -> None:
    model = model_of(kind, box(4), box(2), activation_fn=ACTIVATIONS[name])
    batch = observations(box(4), 64)
    expected, _ = model.predict(batch, deterministic=True)
    model.save(tmp_path / "m.zip")
    with pytest.raises(UnsupportedPolicy, match=r"m\.zip: activation .*pass the live model in Python, or --trust"):
        load_teacher(tmp_path / "m.zip")
    for teacher in (load_teacher(model), load_teacher(tmp_path / "m.zip", trust=True)):
        np.testing.assert_allclose(teacher.predict(batch, deterministic=True)[0], expected, atol=1e-6)
        assert any("labels come from the policy object" in note for note in teacher.info.notes)
        assert teacher.info.activation.isidentifier()


def test_a_known_activation_is_still_read() -> None:
    teacher = load_teacher(model_of(PPO, box(4), box(2), activation_fn=nn.Mish))
    assert (teacher.info.activation, teacher.info.notes) == ("mish", ())


@pytest.mark.parametrize("kind", [PPO, DQN])
def test_an_extractor_of_its_own_on_bounds_as_wide_as_float32(kind: Any) -> None:
    wide = spaces.Box(-MAX, MAX, (4,))
    model = model_of(kind, wide, spaces.Discrete(3), features_extractor_class=Plain)
    batch = observations(box(4), 64)
    expected, _ = model.predict(batch, deterministic=True)
    assert (load_teacher(model).predict(batch, deterministic=True)[0] == expected).all()


class Plain(BaseFeaturesExtractor):
    """A dense layer without bounds of its own."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 6) -> None:
        super().__init__(observation_space, features_dim)
        self.dense = nn.Linear(4, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        return self.dense(observations)


class Broken(Plain):
    """Raises, once `broken`."""

    broken = False

    def forward(self, observations: Tensor) -> Tensor:
        if self.broken:
            raise ZeroDivisionError("of its\nown")
        return super().forward(observations)


def test_code_of_its_own_that_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(PPO, box(4), spaces.Discrete(3), features_extractor_class=Broken)
    monkeypatch.setattr(Broken, "broken", True)
    refused(model, "live PPO", "it raised ZeroDivisionError", "of its own")


def test_weights_of_an_own_extractor_are_opened_after_trust(tmp_path: Path) -> None:
    """The zip does not name the extractor's class among its settings; only the weights tell."""
    model = model_of(PPO, box(4), spaces.Discrete(3), features_extractor_class=Waves)
    model.save(tmp_path / "m.zip")
    content = members(tmp_path / "m.zip")
    data = json.loads(content["data"])
    data["policy_kwargs"].pop("features_extractor_class")  # what is printed; what is serialised still names it
    write_zip(tmp_path / "m.zip", content | {"data": json.dumps(data).encode()})
    refused(tmp_path / "m.zip", "a features extractor of its own", "--trust")
    teacher, batch = load_teacher(tmp_path / "m.zip", trust=True), observations(box(4), 32)
    expected, _ = model.predict(batch, deterministic=True)
    assert (teacher.predict(batch, deterministic=True)[0] == expected).all()


def test_sizes_that_numpy_gives_can_be_written_as_json() -> None:
    """MultiDiscrete actions make the last layer's width a number of numpy's."""
    live = load_teacher(model_of(PPO, box(4), spaces.MultiDiscrete([2, 3]), features_extractor_class=Waves))
    module = nn.Sequential(nn.Linear(4, np.int64(8)), nn.Tanh(), nn.Linear(np.int64(8), np.int64(2)))  # type: ignore[arg-type]
    custom = make_custom_teacher(module, box(4), spaces.Discrete(2))
    for teacher in (live, custom):
        assert json.loads(json.dumps(describe_teacher(teacher)))["macs"] > 0
        assert {type(size) for layer in teacher.info.layers for size in layer} == {int}
