"""Fails when a student sees more than its keys, or needs the rest to act."""

from __future__ import annotations

import pickle  # what multiprocessing does with a policy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from policykd import api
from policykd.cli.main import main
from policykd.learn.judging.judge import Judging
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.packing import packing_of
from policykd.students.load import load_student
from policykd.students.view import Partial, View, seeing
from policykd.teachers.base import Teacher
from policykd.teachers.live import from_model
from tests.unit.learn.test_distill import CONTROLLER, tiny

ID = "PartialCartPole-v0"


class PartialCartPole(gym.ObservationWrapper[Any, Any, Any]):
    """Positions and velocities apart, and a number that tells nothing."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(gym.make("CartPole-v1", render_mode=render_mode))
        pair = spaces.Box(-100, 100, (2,), np.float32)
        self.observation_space = spaces.Dict({"speed": pair, "place": pair, "count": spaces.Discrete(3)})

    def observation(self, observation: Any) -> dict[str, Any]:
        place, speed = observation[[0, 2]], observation[[1, 3]]
        return {"speed": speed, "place": place, "count": int(1000 * abs(place[0])) % 3}


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gym.register(ID, entry_point=PartialCartPole)
    yield
    del gym.registry[ID]


def config(seed: int, student: dict[str, Any], **changes: Any) -> Config:
    return tiny(seed, student=student, env={"id": ID}, **changes)


def teacher() -> Teacher:
    """The linear controller of CartPole; it sees everything: count (one-hot), place, speed."""
    model = PPO("MultiInputPolicy", ID, policy_kwargs={"net_arch": []}, device="cpu", seed=0)
    with torch.no_grad():
        weight = torch.cat([torch.zeros(2, 3), CONTROLLER[:, [0, 2, 1, 3]]], 1)
        model.policy.action_net.weight.copy_(weight)
        model.policy.action_net.bias.zero_()
    return from_model(model)


def test_a_student_with_a_memory_makes_up_for_what_it_does_not_see(tmp_path: Path) -> None:
    student = {"kind": "gru", "width": 8, "keys": ["place"]}
    one = config(1, student, update={"n_updates": 300, "batch_size": 256, "learning_rate": 0.02})
    run = api.distill(one, teacher=teacher(), out=tmp_path / "run")
    assert list(run.student.observation_space) == ["place"] and run.student.footprint.constants == 4
    assert run.result["retention"]["value"] > 0.8
    judged = api.evaluate(str(run.folder), how=Judging(episodes=5))
    assert judged["return"]["mean"] > 350, "in its environment, which shows more"
    alone = load_student(run.folder)
    env = gym.make(ID)
    seen, _ = env.reset(seed=3)
    both = [policy.predict({"place": seen["place"]}, deterministic=True)[0] for policy in (run.student, alone)]
    assert both[0] == both[1] == alone.predict(seen, deterministic=True)[0]
    plain = load_student(run.folder, backend="numpy")
    assert plain.predict({"place": seen["place"]}, deterministic=True)[0] == both[0]


def test_a_feed_forward_student_sees_its_keys_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = config(1, {"width": 8, "depth": 1, "keys": ["speed", "place"]})
    run = api.distill(one, teacher=teacher(), out=tmp_path / "run")
    assert run.result["retention"]["value"] > 0.9 and run.student.footprint.constants == 8
    assert main(["inspect", str(run.folder)]) == 0
    assert "count" not in capsys.readouterr().out.split("provenance")[0].split("observation_space")[1]


def test_what_it_does_not_see_changes_nothing() -> None:
    whole = teacher().observation_space
    view = View.of(["place"], whole, packing_of(whole))
    rng = np.random.default_rng(0)
    packed = rng.normal(size=(20, packing_of(whole).shape[0])).astype(np.float32)
    other = packed + rng.normal(size=packed.shape).astype(np.float32)
    assert view.columns is not None
    other[:, view.columns] = packed[:, view.columns]
    assert np.array_equal(view.features(packed), view.features(other))
    assert not np.array_equal(view.features(packed), view.features(packed + 1))
    assert torch.equal(view.tensor_features(torch.from_numpy(packed)), torch.from_numpy(view.features(packed)))
    everything = View.of(None, whole, packing_of(whole))
    assert everything.columns is None and everything.features(packed).shape == (20, 7)


@pytest.mark.parametrize(
    ("keys", "said"), [(["place", "nowhere"], "found nowhere, expected some of count, place, speed"), ([], "keys")]
)
def test_keys_that_are_not_there_are_refused(keys: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, ValueError), match=said):
        api.distill(config(0, {"keys": keys}), teacher=teacher(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_keys_of_what_is_no_dict_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "student.keys=[place]", "--out", str(tmp_path / "run")]) == 2
    assert "expected a Dict: leave student.keys out" in capsys.readouterr().err


def test_it_is_sent_to_other_processes_as_it_is(tmp_path: Path) -> None:
    one = config(1, {"width": 4, "keys": ["place"]}, rollout={"rounds": 1, "timesteps": 400})
    run = api.distill(one, teacher=teacher(), out=tmp_path / "run")
    partial = seeing(run.student, teacher().observation_space)
    assert isinstance(partial, Partial)
    sent = pickle.loads(pickle.dumps(partial))
    rows = torch.randn(5, partial.packing.shape[0])
    assert torch.equal(sent.distribution_params(rows), partial.distribution_params(rows))
