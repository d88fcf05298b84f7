"""Fine-tuning: the student surpasses a weak teacher, does not drop at the start, is stopped and goes on; PPD learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policykd
from policykd.cli.main import main
from policykd.loss.distributions import Categorical, SquashedDiagGaussian
from policykd.spine.artifact import save_artifact
from policykd.spine.config.load import load_config
from policykd.spine.errors import Interrupted
from policykd.spine.spaces import action_map
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.teachers.base import Teacher
from policykd.teachers.custom import make_custom_teacher
from tests.support.runs import StopsBehind

ROOT = Path(__file__).parents[3]
CARTPOLE = spaces.Box(-np.inf, np.inf, (4,), np.float32)
FEW = ["evaluate.episodes=10", "evaluate.select_episodes=8"]


def follows_the_pole(x: torch.Tensor) -> torch.Tensor:
    """A weak teacher: it looks at the pole's angle and speed, and lets the cart run away."""
    lean = 3.0 * x[:, 2] + 1.0 * x[:, 3] - 0.35
    return torch.stack([-lean, lean], -1)


def weak_teacher() -> Teacher:
    return make_custom_teacher(follows_the_pole, CARTPOLE, spaces.Discrete(2), env_id="CartPole-v1", name="weak")


def written(folder: Path, student: MlpStudent) -> Path:
    save_artifact(folder / "student.safetensors", *student.to_artifact())
    return folder / "student.safetensors"


@pytest.fixture
def its_student(tmp_path: Path) -> Path:
    """A linear student that is its teacher, to the last number."""
    weight = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-3.0, 3.0], [-1.0, 1.0]])
    bias = torch.tensor([0.35, -0.35])
    student = MlpStudent(
        normaliser=Normaliser(np.zeros(4, np.float32), np.ones(4, np.float32)),
        layers=((weight, bias),),
        log_std=torch.zeros(0),
        activation="tanh",
        distribution=Categorical(2),
        action_map=action_map(spaces.Discrete(2), unscale=False),
        observation_space=CARTPOLE,
        action_space=spaces.Discrete(2),
    )
    return written(tmp_path, student)


def test_it_surpasses_a_weak_teacher_and_does_not_drop_at_the_start(its_student: Path, tmp_path: Path) -> None:
    config = load_config(
        None, [*FEW, "finetune.timesteps=16384", "finetune.warmup_steps=4096", "finetune.learning_rate=0.01"]
    )
    run = policykd.finetune(its_student, config, teacher=weak_teacher(), out=tmp_path / "run")
    jsonschema.validate(run.result, json.loads((ROOT / "tests" / "schema" / "result.schema.json").read_text()))
    found: dict[str, Any] = run.result["finetune"]
    start = found["history"][0]["return"]
    assert found["over_teacher"]["ci95"][0] > 0
    assert found["over_before"]["ci95"][0] > 0
    assert run.result["retention"]["ci95"][0] > 1
    behind = [judged for judged in found["history"] if 4096 < judged["timesteps"] <= 8192]
    assert min(judged["return"] for judged in behind) > 0.8 * start
    assert found["critic"]["source"] == "returns" and found["critic"]["r2"] > 0.1
    assert (run.folder / "report.html").is_file()
    assert policykd.load_student(run.folder).predict(np.zeros(4, np.float32), deterministic=True)[0] in (0, 1)


def test_a_stopped_run_goes_on(its_student: Path, tmp_path: Path) -> None:
    config = load_config(
        None,
        [*FEW, "finetune.timesteps=2048", "finetune.warmup_steps=512", "finetune.n_steps=64", "finetune.judgements=2"],
    )
    folder = tmp_path / "cut"
    stop = StopsBehind(folder / "checkpoints" / "latest.json")
    with pytest.raises(Interrupted, match="continue with --resume"):
        policykd.finetune(its_student, config, teacher=weak_teacher(), out=folder, stop=stop)
    stopped = json.loads((folder / "checkpoints" / "latest.json").read_text())
    assert stopped["timesteps"] < 2048
    run = policykd.resume(folder, teacher=weak_teacher())
    history = run.result["finetune"]["history"]
    assert history[0]["timesteps"] == 0
    assert history[-1]["timesteps"] >= 2048
    assert run.result["timesteps"] == history[-1]["timesteps"]


def test_ppd_learns_from_new_weights(tmp_path: Path) -> None:
    config = load_config("methods/ppd", [*FEW, "finetune.timesteps=8192", "finetune.learning_rate=3e-3"])
    run = policykd.finetune(None, config, out=tmp_path / "run")
    assert run.result["finetune"]["before"]["return"]["mean"] < 100
    assert run.result["retention"]["value"] > 0.4


def test_sac_goes_on_where_returns_are_negative(tmp_path: Path) -> None:
    import gymnasium as gym

    env = gym.make("Pendulum-v1")
    box, torque = env.observation_space, env.action_space
    student = MlpStudent(
        normaliser=Normaliser(np.zeros(3, np.float32), np.ones(3, np.float32)),
        layers=((torch.tensor([[0.0], [0.0], [2.0]]), torch.zeros(1)),),
        log_std=torch.tensor([-1.0]),
        activation="tanh",
        distribution=SquashedDiagGaussian(1),
        action_map=action_map(torque, unscale=True),
        observation_space=box,
        action_space=torque,
    )
    few = ["evaluate.episodes=4", "evaluate.select_episodes=4", "finetune.timesteps=450", "finetune.warmup_steps=400"]
    more = ["finetune.judgements=1", "finetune.batch_size=64", "teacher=builtin:pendulum"]
    config = load_config(None, [*few, *more])
    run = policykd.finetune(written(tmp_path, student), config, out=tmp_path / "run")
    found = run.result["finetune"]
    assert all(judged["return"] < 0 for judged in found["history"])
    assert found["history"][0]["lambda"] == 1.0  # worse than random: it swings, and never stands
    assert found["critic"]["source"] == "returns"  # what the teacher expects says nothing of this student
    assert found["critic"]["teacher_r2"] < 0.5


def test_the_command_says_in_one_line_what_is_missing(tmp_path: Path, capsys: Any, its_student: Path) -> None:
    assert main(["finetune"]) == 2
    assert "finetune: no student: give a run folder" in capsys.readouterr().err
    assert main(["finetune", str(its_student)]) == 2
    assert "say which one with --teacher" in capsys.readouterr().err
    assert main(["finetune", str(its_student), "--teacher", "builtin:pendulum"]) == 2
    assert "observes or acts otherwise than" in capsys.readouterr().err
