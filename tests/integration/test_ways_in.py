"""Every way that a user's teacher and environment come in, on real runs of a small budget.

Red when a source is read differently from another one, or when something a user names is ignored.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import jsonschema
import pytest

from policykd import Config, InputError, distill, evaluate, load_config, load_student, load_teacher, resume
from policykd.learn.judging.judge import Judging
from policykd.spine.errors import Interrupted
from policykd.spine.stop import NeverStop
from policykd.spine.tracker import NullTracker
from tests.house.rules import ROOT

BUILTIN = ROOT / "policykd" / "teachers" / "builtin" / "cartpole.zip"
SCHEMA = json.loads((ROOT / "tests" / "schema" / "result.schema.json").read_text())
SMALL = [
    *("rollout.rounds=3", "rollout.timesteps=6000", "update.n_updates=150", "student.width=8"),
    *("evaluate.episodes=6", "evaluate.select_episodes=3"),
]


@pytest.fixture
def bare_zip(tmp_path: Path) -> Path:
    """A zip whose name says nothing of its environment."""
    return Path(shutil.copy(BUILTIN, tmp_path / "mine.zip"))


def _check(run) -> dict:
    jsonschema.validate(run.result, SCHEMA)
    assert json.loads((run.folder / "result.json").read_text()) == run.result
    assert run.result["retention"]["value"] > 0.5
    return run.result


def test_a_bare_zip_with_its_environment(bare_zip, tmp_path):
    with pytest.raises(InputError, match="--env"):
        distill(load_config(None, SMALL, {"teacher": str(bare_zip)}), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    run = distill(load_config(None, SMALL, {"teacher": str(bare_zip), "env": "CartPole-v1"}), out=tmp_path / "a")
    assert _check(run)["backend"] == "native"


def test_a_package_of_the_users_own(bare_zip, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "support"))
    name = "own_env:policykd-test/HeavyPole-v0"
    with pytest.raises(InputError, match="--allow-import"):
        distill(load_config(None, SMALL, {"teacher": str(bare_zip), "env": name}), out=tmp_path / "a")
    assert "own_env" not in sys.modules
    overrides = [*SMALL, "env.kwargs.mass=0.2", "env.wrappers=[own_env:Plain, {TimeLimit: {max_episode_steps: 120}}]"]
    cli = {"teacher": str(bare_zip), "env": name, "allow_import": True}
    run = distill(load_config(None, overrides, cli), out=tmp_path / "a")
    result = _check(run)
    assert result["backend"] == "sync"
    assert result["success"] is not None
    again = str(run.folder / "config.yaml")
    with pytest.raises(InputError, match=r"a configuration alone may not .*--allow-import"):
        load_config(again)
    assert load_config(again, vouched=True).env.kwargs == {"mass": 0.2}


def test_a_factory_and_a_live_model(tmp_path):
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy

    model = PPO.load(BUILTIN, device="cpu")
    config = load_config(None, SMALL)
    run = distill(config, teacher=model, env=lambda: gym.make("CartPole-v1"), out=tmp_path / "run")
    assert _check(run)["teacher"]["algo"] == "ppo"
    for policy in (run.student, load_teacher("builtin:cartpole")):
        mean, _ = evaluate_policy(policy, gym.make("CartPole-v1"), n_eval_episodes=3, warn=False)
        assert mean > 100


def test_a_family_writes_its_frontier(tmp_path):
    overrides = [entry for entry in SMALL if "width" not in entry]
    run = distill(load_config(None, [*overrides, "student.width=[4, 12]"]), out=tmp_path / "run")
    members = json.loads((run.folder / "frontier.json").read_text())["members"]
    assert [member["width"] for member in members] == [4, 12]
    assert sum(member["status"] == "chosen" for member in members) == 1
    assert _check(run)["student"]["params"] in {member["params"] for member in members}


def test_teacher_and_student_mixed(tmp_path):
    mixed = ["rollout.beta.schedule=constant", "rollout.beta.value=0.5", "env.backend=sync"]
    assert _check(distill(load_config(None, [*SMALL, *mixed]), out=tmp_path / "run"))["agreement"] > 0.5


def test_bounded_data_says_when_it_drops(tmp_path):
    lines = []

    class Noting(NullTracker):
        def note(self, line: str) -> None:
            lines.append(line)

    config = load_config(None, [*SMALL, "data.max_states=1500"])
    distill(config, out=tmp_path / "run", tracker=Noting())
    assert sum("oldest states are dropped" in line for line in lines) == 1


def test_mistaken_types_are_named():
    with pytest.raises(InputError, match="load_config"):
        distill("configs/cartpole.yaml")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"env\.id"):
        distill(env="CartPole-v1")  # type: ignore[arg-type]


def test_an_environment_that_raises_or_never_ends(tmp_path, monkeypatch):
    from policykd.evaluation import episodes

    class Raising(gym.Wrapper):
        def step(self, action):
            raise RuntimeError("the simulator\ncrashed")

    with pytest.raises(InputError, match="RuntimeError: the simulator crashed") as caught:
        distill(load_config(None, SMALL), env=lambda: Raising(gym.make("CartPole-v1")), out=tmp_path / "a")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(episodes, "MAX_STEPS", 100)
    with pytest.raises(InputError, match="TimeLimit"):
        distill(load_config(None, [*SMALL, "env.backend=sync"]), out=tmp_path / "b")


def test_a_function_cannot_be_resumed_without_it(tmp_path):
    run = distill(load_config(None, SMALL), env=lambda: gym.make("CartPole-v1"), out=tmp_path / "run")
    (run.folder / "result.json").unlink()
    with pytest.raises(InputError, match="Python function"):
        resume(run.folder)
    assert resume(run.folder, env=lambda: gym.make("CartPole-v1")).result["env"] == run.result["env"]


def test_a_function_is_remembered_from_the_first_moment(tmp_path):
    class Stopping(NeverStop):
        def check(self) -> None:
            raise Interrupted("stopped by a test")

    with pytest.raises(Interrupted, match="--resume"):
        distill(load_config(None, SMALL), env=lambda: gym.make("CartPole-v1"), out=tmp_path / "run", stop=Stopping())
    with pytest.raises(InputError, match="Python function"):
        resume(tmp_path / "run")


def test_a_value_teacher_is_judged_by_its_mode(tmp_path):
    from stable_baselines3 import DQN

    model = DQN("MlpPolicy", "CartPole-v1", device="cpu", seed=0, learning_starts=100).learn(300)
    config = load_config(None, [*SMALL, "evaluate.deterministic=false", "env.id=CartPole-v1"])
    greedy = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"deterministic": True})})
    notes = []
    for n, each in enumerate((config, greedy)):
        try:
            notes.append(distill(each, teacher=model, out=tmp_path / str(n)).result["teacher"]["return"])
        except InputError as error:  # so short a training may not beat a random policy: then it must be so for both
            notes.append(str(error))
    assert notes[0] == notes[1]


def test_the_gate_is_in_the_result(tmp_path):
    run = distill(load_config(None, SMALL, {"keep": 0.9, "margin": 0.05}), out=tmp_path / "run")
    gate = _check(run)["gate"]
    assert gate["passed"] is (gate["lower"] >= 0.85)
    assert run.passed is gate["passed"]


def test_a_student_judged_again_gives_the_same_returns(tmp_path):
    run = distill(load_config(None, SMALL), out=tmp_path / "run")
    again = evaluate(str(run.folder), teacher="builtin:cartpole", how=Judging(episodes=6))
    assert again["return"] == run.result["student"]["return"]
    assert again["teacher"]["return"] == run.result["teacher"]["return"]
    assert load_student(run.folder, backend="numpy").document["params"] == run.result["student"]["params"]


def test_a_teacher_no_better_than_random_is_refused_and_leaves_nothing(tmp_path):
    from stable_baselines3 import PPO

    untrained = PPO("MlpPolicy", "Pendulum-v1", device="cpu", seed=0)
    config = Config(env={"id": "Pendulum-v1"})
    with pytest.raises(InputError, match="random"):
        distill(config, teacher=untrained, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_environment_that_does_not_fit_is_refused(tmp_path):
    config = load_config(None, SMALL, {"env": "Acrobot-v1"})
    with pytest.raises(InputError, match="observation space") as caught:
        distill(config, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
