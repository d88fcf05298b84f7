"""Fails when a MaskablePPO teacher cannot be distilled, resumed or judged, when the student loses its returns, or when
anybody takes a masked action on the way: the environments assert it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sb3_contrib import MaskablePPO

from policykd import api
from policykd.learn.judging.judge import Judging, judge
from policykd.learn.setup.session import Work
from policykd.report.video import record
from policykd.spine.config.schema import Config, EnvConfig
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.stop import NeverStop
from policykd.spine.tracker import NullTracker
from policykd.students.load import load_student
from policykd.teachers.load import load_teacher
from tests.support.masked import LENGTH, MAKERS, Guarded, Targets
from tests.support.runs import Notes, StopsBehind


def trained(name: str) -> MaskablePPO:
    model = MaskablePPO(
        "MlpPolicy", MAKERS[name](), n_steps=256, batch_size=64, gamma=0.4, learning_rate=3e-3, seed=0, device="cpu"
    )
    return model.learn(4000)


def small(**changes: Any) -> Config:
    return Config.model_validate(
        {
            "student": {"width": 8, "depth": 1},
            "rollout": {"rounds": 3, "timesteps": 3000},
            "update": {"n_updates": 300, "batch_size": 128},
            "evaluate": {"episodes": 10, "select_episodes": 5},
            "device": "cpu",
            **changes,
        }
    )


@pytest.mark.parametrize("name", MAKERS)
def test_a_masked_teacher_becomes_a_student(name: str, tmp_path: Path) -> None:
    trained(name).save(tmp_path / "model.zip")
    before = Guarded.taken
    config = small(teacher=str(tmp_path / "model.zip"))
    run = api.distill(config, env=MAKERS[name], out=tmp_path / "run")
    assert Guarded.taken - before > 3000
    result = run.result
    assert result["teacher"]["algo"] == "maskable_ppo"
    assert result["teacher"]["return"]["mean"] > 0.9 * LENGTH
    assert result["random"]["return"]["mean"] < 0.8 * LENGTH
    assert result["retention"]["value"] > 0.9
    assert result["agreement"] > 0.9
    student = load_student(tmp_path / "run")
    assert student.masked and load_student(tmp_path / "run", backend="numpy").masked


def test_a_live_teacher_with_the_other_losses_and_a_family(tmp_path: Path) -> None:
    changes = {
        "loss": {"kind": "reverse_kl", "temperature": 2.0},
        "student": {"width": [4, 8], "depth": 1},
        "evaluate": {"episodes": 5, "select_episodes": 5, "deterministic": False},
        "rollout": {"rounds": 3, "timesteps": 3000, "beta": {"schedule": "constant", "value": 0.5}},
    }
    run = api.distill(
        small(**changes), teacher=trained("multi_discrete"), env=MAKERS["multi_discrete"], out=tmp_path / "r"
    )
    assert run.result["retention"]["value"] > 0.8
    assert run.student.masked


def test_environments_without_masks_are_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    def unmasked() -> Any:
        import gymnasium as gym

        env = MAKERS["discrete"]()

        class Hidden(gym.Env[Any, Any]):
            observation_space, action_space = env.observation_space, env.action_space

        return Hidden()

    model = MaskablePPO("MlpPolicy", MAKERS["discrete"](), device="cpu")
    with pytest.raises(InputError, match=r"has no action_masks\(\)"):
        api.distill(small(), teacher=model, env=unmasked, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_student_is_judged_under_masks(tmp_path: Path) -> None:
    import gymnasium as gym

    gym.register("policykd-test/Masked-v0", MAKERS["discrete"], vector_entry_point=lambda **_: None)
    model = trained("discrete")
    model.save(tmp_path / "model.zip")
    env = {"id": "policykd-test/Masked-v0", "backend": "native"}
    config = small(teacher=str(tmp_path / "model.zip"), env=env)
    notes = Notes()
    run = api.distill(config, out=tmp_path / "run", tracker=notes)
    assert run.result["backend"] == "sync" and any("a vector class has no action masks" in line for line in notes.lines)
    work, how = Work(NullTracker(), NeverStop()), Judging(episodes=5)
    found = judge(str(run.folder), str(tmp_path / "model.zip"), EnvConfig(), how, work)
    assert found["retention"]["value"] > 0.8 and found["agreement"] > 0.9


def test_a_stopped_run_continues_bit_for_bit_and_is_filmed(tmp_path: Path) -> None:
    model = MaskablePPO("MlpPolicy", Targets(), n_steps=256, gamma=0.4, learning_rate=3e-3, seed=0, device="cpu")
    teacher = load_teacher(model.learn(3000))
    config = small(update={"n_updates": 50}, evaluate={"episodes": 4, "select_episodes": 4})
    whole = api.distill(config, teacher=teacher, env=Targets, out=tmp_path / "whole")
    flag = StopsBehind(tmp_path / "run" / "checkpoints" / "latest.json")
    with pytest.raises(Interrupted):
        api.distill(config, teacher=teacher, env=Targets, out=tmp_path / "run", stop=flag)
    shard = load_file(tmp_path / "run" / "checkpoints" / "shard-0000.safetensors")
    assert (np.isneginf(shard["params"]).sum(-1) == 2).all(), "a stored label holds its mask"
    resumed = api.resume(tmp_path / "run", teacher=teacher, env=Targets)
    first, second = ((run.folder / "student.safetensors").read_bytes() for run in (whole, resumed))
    assert first == second
    policies = [("teacher", teacher), ("student", resumed.student)]
    film = record(policies, Targets, tmp_path / "both.gif", seed=0)
    assert [played["steps"] for played in film["policies"]] == [LENGTH, LENGTH]
