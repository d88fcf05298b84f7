"""Teachers on Dict, one-hot and image observations, distilled through the Python interface into MLP students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import A2C

import policykd
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError

SETTINGS = ["rollout.rounds=4", "rollout.timesteps=2000", "evaluate.episodes=20", "evaluate.select_episodes=10"]


class Follow(gym.Env):
    """The action must be the number that is shown; ten steps. `kind` says how it is shown."""

    def __init__(self, kind: str) -> None:
        self.kind, self.action_space = kind, spaces.Discrete(3)
        self.observation_space: spaces.Space[Any] = {
            "dict": spaces.Dict({"shown": spaces.Discrete(3), "noise": spaces.Box(-1, 1, (2,), np.float64)}),
            "unsorted": spaces.Dict(shown=spaces.Discrete(3), noise=spaces.Box(-1, 1, (3,), np.float64)),
            "sorted": spaces.Dict(noise=spaces.Box(-1, 1, (3,), np.float64), shown=spaces.Discrete(3)),
            "discrete": spaces.Discrete(3),
            "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        }[kind]

    def _shown(self) -> Any:
        self._number = int(self.np_random.integers(3))
        if self.kind == "discrete":
            return self._number
        if self.kind == "image":
            image = np.zeros((36, 36, 1), np.uint8)
            image[12 * self._number : 12 * self._number + 12] = 255
            return image
        return {"shown": self._number, "noise": self.np_random.uniform(-1, 1, 2 if self.kind == "dict" else 3)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 10
        return self._shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(int(action) == self._number)
        self._left -= 1
        return self._shown(), reward, self._left == 0, False, {}


@pytest.mark.parametrize(
    ("kind", "policy"), [("dict", "MultiInputPolicy"), ("discrete", "MlpPolicy"), ("image", "CnnPolicy")]
)
def test_a_student_on_flattened_observations_keeps_the_return(kind: str, policy: str, tmp_path: Path) -> None:
    model = A2C(policy, Follow(kind), device="cpu", seed=0, learning_rate=2e-3, n_steps=32)
    model.learn(3000)
    model.save(tmp_path / "teacher.zip")
    config = load_config(None, SETTINGS, {"teacher": str(tmp_path / "teacher.zip")})
    run = policykd.distill(config, env=lambda: Follow(kind), out=tmp_path / "run")
    assert run.result["retention"]["ci95"][0] >= 0.95
    plain = policykd.load_student(run.folder, backend="numpy")
    env = Follow(kind)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        action = run.student.predict(observation, deterministic=True)[0]
        assert action == plain.predict(observation, deterministic=True)[0] == env._number


def test_the_order_of_a_dict_is_the_teachers(tmp_path: Path) -> None:
    """Whatever order the environment has, and whatever order a file is written in."""
    model = A2C("MultiInputPolicy", Follow("unsorted"), device="cpu", seed=0, learning_rate=2e-3, n_steps=32)
    model.learn(3000)
    model.save(tmp_path / "teacher.zip")
    assert list(model.observation_space.spaces) == ["shown", "noise"]
    live, loaded = policykd.load_teacher(model), policykd.load_teacher(tmp_path / "teacher.zip")
    assert live.fingerprint == loaded.fingerprint and live.packing == loaded.packing
    config = load_config(None, SETTINGS, {"teacher": str(tmp_path / "teacher.zip")})
    for kind in ("unsorted", "sorted"):
        env = Follow(kind)
        run = policykd.distill(config, env=lambda kind=kind: Follow(kind), out=tmp_path / kind)
        assert run.result["teacher"]["return"]["mean"] == 10.0
        assert run.result["retention"]["ci95"][0] >= 0.95
        saved = policykd.load_student(run.folder)
        for policy in (live, loaded, run.student, saved, policykd.load_student(run.folder, backend="numpy")):
            for seed in range(5):
                observation, _ = env.reset(seed=seed)
                assert policy.predict(observation, deterministic=True)[0] == env._number, (kind, policy)


def test_images_that_are_too_large_for_an_mlp_are_refused_with_the_reason(tmp_path: Path) -> None:
    class Large(Follow):
        def __init__(self) -> None:
            super().__init__("image")
            self.observation_space = spaces.Box(0, 255, (96, 96, 3), np.uint8)

    A2C("CnnPolicy", Large(), device="cpu").save(tmp_path / "teacher.zip")
    config = load_config(None, SETTINGS, {"teacher": str(tmp_path / "teacher.zip")})
    with pytest.raises(InputError, match=r"27648 numbers.*at most 8192"):
        policykd.distill(config, env=Large, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
