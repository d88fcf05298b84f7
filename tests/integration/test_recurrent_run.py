"""Fails when a RecurrentPPO teacher cannot be distilled, resumed, or judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from sb3_contrib import RecurrentPPO

from policykd import api
from policykd.learn.judging.judge import Judging
from policykd.spine.config.schema import Config
from policykd.spine.errors import Interrupted
from tests.support.runs import Notes, StopsBehind


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "model.zip"
    model = RecurrentPPO(
        "MlpLstmPolicy",
        "CartPole-v1",
        n_steps=128,
        batch_size=128,
        n_epochs=6,
        gamma=0.98,
        learning_rate=3e-3,
        seed=0,
        device="cpu",
        policy_kwargs={"lstm_hidden_size": 16, "enable_critic_lstm": False},
    )
    model.learn(4000).save(path)
    return path


def small(teacher: Path, **changes: object) -> Config:
    return Config.model_validate(
        {
            "teacher": str(teacher),
            "env": {"id": "CartPole-v1"},
            "student": {"width": 8, "depth": 1},
            "rollout": {"rounds": 3, "timesteps": 3000},
            "update": {"n_updates": 200, "batch_size": 128},
            "evaluate": {"episodes": 5, "select_episodes": 5},
            "device": "cpu",
            **changes,
        }
    )


def test_a_recurrent_teacher_becomes_a_student(teacher: Path, tmp_path: Path) -> None:
    config = small(teacher)
    notes = Notes()
    run = api.distill(config, out=tmp_path / "run", tracker=notes)
    assert any("a student of kind mlp has none" in line for line in notes.lines)
    result = run.result
    assert result["teacher"]["algo"] == "recurrent_ppo"
    assert result["student"]["return"]["mean"] > 2 * result["random"]["return"]["mean"]
    assert 0.6 < result["agreement"] <= 1
    judged = api.evaluate(run.folder, teacher=str(teacher), how=Judging(episodes=5))
    assert judged["agreement"] == pytest.approx(result["agreement"])
    assert judged["return"] == result["student"]["return"]
    own = api.evaluate(teacher, env="CartPole-v1", teacher=str(teacher), how=Judging(episodes=5))
    assert own["agreement"] == 1.0 and own["retention"]["value"] == 1.0


def test_a_stopped_run_continues_bit_for_bit(teacher: Path, tmp_path: Path) -> None:
    beta = {"schedule": "constant", "value": 0.5}
    config = small(teacher, update={"n_updates": 30}, rollout={"rounds": 3, "timesteps": 1500, "beta": beta})
    whole = api.distill(config, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        api.distill(config, out=tmp_path / "run", stop=StopsBehind(tmp_path / "run" / "checkpoints" / "latest.json"))
    resumed = api.resume(tmp_path / "run")
    first, second = ((run.folder / "student.safetensors").read_bytes() for run in (whole, resumed))
    assert first == second
