"""Fails when a student does not learn a simple teacher within seconds, when the teacher changes meanwhile, or when a
run goes on from a checkpoint that lacks data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from policykd import api
from policykd.learn.judging.notes import notes_of
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.types import Footprint
from policykd.teachers.base import Teacher
from policykd.teachers.live import from_model
from tests.support.matrix import make_model
from tests.support.runs import Notes, StopsBehind

# Holds the pole for all 500 steps from any start; sharp enough to be almost deterministic.
CONTROLLER = torch.tensor([[-1.0, -5.0, -30.0, -10.0], [1.0, 5.0, 30.0, 10.0]])


def scripted() -> Teacher:
    """A linear controller of CartPole in the shape of a stable-baselines3 model."""
    model = PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": []}, device="cpu", seed=0)
    with torch.no_grad():
        model.policy.action_net.weight.copy_(CONTROLLER)
        model.policy.action_net.bias.zero_()
    return from_model(model)


def tiny(seed: int, **changes: Any) -> Config:
    document = {
        "student": {"width": 8, "depth": 1},
        "rollout": {"rounds": 4, "timesteps": 8000},
        "update": {"n_updates": 400, "batch_size": 128},
        "evaluate": {"episodes": 10, "select_episodes": 5},
        "seed": seed,
        "device": "cpu",
        **changes,
    }
    return Config.model_validate(document)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_simple_teacher_is_learned_in_seconds(seed: int, tmp_path: Path) -> None:
    teacher = scripted()
    before = teacher.fingerprint
    run = api.distill(tiny(seed), teacher=teacher, out=tmp_path / "run")
    assert teacher.fingerprint == before, "the teacher never changes"
    result = run.result
    assert result["teacher"]["return"]["mean"] == 500
    assert result["agreement"] >= 0.98
    assert result["student"]["return"]["mean"] >= 0.99 * 500
    assert result["student"]["params"] == run.student.footprint.params == 4 * 8 + 8 + 8 * 2 + 2
    assert result["timesteps"] <= 8000
    assert json.loads((run.folder / "result.json").read_text()) == result


def test_one_seed_is_one_result(tmp_path: Path) -> None:
    config = tiny(5, rollout={"rounds": 2, "timesteps": 2000}, update={"n_updates": 20})
    runs = [api.distill(config, teacher=scripted(), out=tmp_path / name) for name in "ab"]
    first, second = ((run.folder / "student.safetensors").read_bytes() for run in runs)
    assert first == second
    other = api.distill(config.model_copy(update={"seed": 6}), teacher=scripted(), out=tmp_path / "c")
    assert (other.folder / "student.safetensors").read_bytes() != first


def stopped(folder: Path, config: Config) -> None:
    """A run that was stopped after its first checkpoint."""
    with pytest.raises(Interrupted, match="--resume"):
        api.distill(config, teacher=scripted(), out=folder, stop=StopsBehind(folder / "checkpoints" / "latest.json"))
    assert json.loads((folder / "checkpoints" / "latest.json").read_text())["round"] == 0


def test_a_stopped_run_continues_bit_for_bit_and_needs_all_its_data(tmp_path: Path) -> None:
    config = tiny(3, rollout={"rounds": 4, "timesteps": 4000}, update={"n_updates": 20})
    whole = api.distill(config, teacher=scripted(), out=tmp_path / "whole")
    stopped(tmp_path / "run", config)
    shard = tmp_path / "run" / "checkpoints" / "shard-0000.safetensors"
    data = shard.read_bytes()
    shard.unlink()
    with pytest.raises(InputError, match="round 0 is missing") as caught:
        api.resume(tmp_path / "run", teacher=scripted())
    assert "\n" not in str(caught.value)
    shard.write_bytes(data)
    resumed = api.resume(tmp_path / "run", teacher=scripted())
    first, second = ((folder / "student.safetensors").read_bytes() for folder in (whole.folder, resumed.folder))
    assert first == second
    assert not list(shard.parent.glob("shard-*")), "a finished run needs its data no more"


def test_another_teacher_cannot_continue_a_run(tmp_path: Path) -> None:
    config = tiny(3, rollout={"rounds": 4, "timesteps": 4000}, update={"n_updates": 20})
    stopped(tmp_path / "run", config)
    other = scripted()
    other.network.layers[-1].weight.mul_(1.5)
    with pytest.raises(InputError, match="not those"):
        api.resume(tmp_path / "run", teacher=other)


def test_a_family_shares_one_data_set(tmp_path: Path) -> None:
    config = tiny(0, student={"width": [4, 16], "depth": 1, "seeds": 2}, rollout={"rounds": 4, "timesteps": 8000})
    run = api.distill(config, teacher=scripted(), out=tmp_path / "run")
    members = json.loads((run.folder / "frontier.json").read_text())["members"]
    assert [(m["width"], m["seed"]) for m in members] == [(4, 0), (4, 1), (16, 0), (16, 1)]
    chosen = [m for m in members if m["status"] == "chosen"]
    assert len(chosen) == 1 and chosen[0]["params"] == run.result["student"]["params"]
    best = [m for m in members if m["retention"] == max(m["retention"] for m in members)]
    assert chosen[0]["params"] == min(m["params"] for m in best)
    assert run.result["agreement"] >= 0.95 and run.result["timesteps"] <= 8000


def test_every_member_of_a_family_learns(tmp_path: Path) -> None:
    config = tiny(1, student={"width": [8, 12], "depth": 1}, rollout={"rounds": 4, "timesteps": 8000})
    run = api.distill(config, teacher=scripted(), out=tmp_path / "run")
    members = json.loads((run.folder / "frontier.json").read_text())["members"]
    assert all(m["retention"] >= 0.95 for m in members)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"):
        (tmp_path / "run" / "config.yaml").write_text("")
        with pytest.raises(InputError):
            api.resume(tmp_path / "run", teacher=scripted())


def test_a_teacher_like_random_is_refused(tmp_path: Path) -> None:
    teacher = scripted()
    teacher.network.layers[-1].weight.zero_()
    with pytest.raises(InputError, match="not clearly above"):
        api.distill(tiny(0), teacher=teacher, out=tmp_path / "run")
    assert np.isfinite(teacher.network.layers[-1].weight.numpy()).all()


def test_a_student_no_smaller_than_its_teacher_is_said_once_and_recorded(tmp_path: Path) -> None:
    quick = {"rollout": {"rounds": 2, "timesteps": 2000}, "update": {"n_updates": 20}}
    tracker = Notes()
    larger = api.distill(tiny(0, **quick), teacher=scripted(), out=tmp_path / "larger", tracker=tracker)
    (line,) = [line for line in tracker.lines if line.startswith("student: ")]
    assert "has 58 parameters, no fewer than the teacher's 10" in line
    assert line.endswith("and none can be smaller: a linear one has 10")
    assert larger.result["notes"] == [line]


@pytest.mark.parametrize(("widths", "said"), [([2], True), ([1, 8], False), ([1], False)])
def test_the_smallest_of_a_family_decides(widths: list[int], said: bool) -> None:
    teacher = api.load_teacher(scripted())
    params = {1: 9, 2: 16}  # of 4 inputs, one hidden layer, 2 outputs
    teacher = teacher.with_info(footprint=Footprint(params[2], 0, 0))
    notes = notes_of(Config.model_validate({"student": {"width": widths, "depth": 1}}), teacher)
    assert bool(notes) is said
    assert all("choose a smaller student.width, or student.depth=0 (10)" in note for note in notes)


def test_advice_that_makes_nothing_smaller_is_not_given() -> None:
    teacher = api.load_teacher(scripted()).with_info(footprint=Footprint(10, 0, 0))
    (note,) = notes_of(Config.model_validate({"student": {"width": 4, "depth": 0}}), teacher)
    assert note.endswith("none can be smaller: a linear one has 10")


def test_a_student_of_packed_observations_counts_every_feature() -> None:
    teacher = api.load_teacher(make_model("qrdqn-dict"))
    features = teacher.packing.n_features  # a Dict of boxes: 8 numbers
    config = Config.model_validate({"student": {"width": [2], "depth": 1}})
    size = features * 2 + 2 + 2 * 3 + 3
    assert notes_of(config, teacher.with_info(footprint=Footprint(size + 1, 0, 0))) == []
    assert f"has {size} parameters" in notes_of(config, teacher.with_info(footprint=Footprint(size, 0, 0)))[0]
