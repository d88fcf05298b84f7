"""Zoo folders as the zoo writes them, with wrappers, statistics and stacked frames: the whole way to a student.

Red when a teacher acts in another environment than the one it was trained in, or a student's file forgets it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from policykd import InputError, api, distill, load_config, load_student, load_teacher, resume
from policykd.cli.main import main
from policykd.learn.judging.judge import Judging
from policykd.spine.artifact import read_header
from policykd.spine.config.schema import EnvConfig
from tests.support.teachers import write_yaml

SMALL = [
    *("rollout.rounds=3", "rollout.timesteps=6000", "update.n_updates=150", "student.width=8"),
    *("evaluate.episodes=6", "evaluate.select_episodes=3"),
]
TIME = "sb3_contrib.common.wrappers.TimeFeatureWrapper"


@dataclass(frozen=True)
class Trained:
    """A folder of the zoo, its model, and what makes its environment as the zoo does, for judging."""

    folder: Path
    model: PPO
    make: Callable[[], VecEnv]

    def returns(self, seeds: range) -> list[float]:
        """Of the first episode after each seed, by the mode, with stable-baselines3's own code."""
        found = []
        for seed in seeds:
            venv = self.make()
            venv.seed(seed)
            found += evaluate_policy(self.model, venv, n_eval_episodes=1, return_episode_rewards=True)[0]
            venv.close()
        return found


def saved(folder: Path, env_id: str, model: PPO, **config: Any) -> Path:
    """The files of the zoo: ppo/ENV_1/ENV.zip, ENV/config.yml and ENV/args.yml."""
    details = folder / "ppo" / f"{env_id}_1" / env_id
    details.mkdir(parents=True)
    model.save(details.parent / f"{env_id}.zip")
    write_yaml(details / "config.yml", policy="MlpPolicy", n_envs=4, **config)
    write_yaml(details / "args.yml", env=env_id, algo="ppo")
    return details.parent


def learned(venv: VecEnv, steps: int) -> PPO:
    policy = {"net_arch": [16]}
    model = PPO("MlpPolicy", venv, n_steps=64, learning_rate=3e-3, policy_kwargs=policy, seed=0, device="cpu")
    return model.learn(steps)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """CartPole with the time that is left, normalised."""
    venv = VecNormalize(make_vec_env("CartPole-v1", 4, seed=0, wrapper_class=TimeFeatureWrapper))
    model = learned(venv, 8000)
    folder = saved(tmp_path_factory.mktemp("timed"), "CartPole-v1", model, env_wrapper=[TIME], normalize=True)
    file = folder / "CartPole-v1" / "vecnormalize.pkl"
    venv.save(str(file))

    def make() -> VecEnv:
        judged = VecNormalize.load(str(file), make_vec_env("CartPole-v1", wrapper_class=TimeFeatureWrapper))
        judged.training, judged.norm_reward = False, False
        return judged

    return Trained(folder, model, make)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """CartPole with three frames."""
    model = learned(VecFrameStack(make_vec_env("CartPole-v1", 4, seed=0), 3), 8000)
    folder = saved(tmp_path_factory.mktemp("stacked"), "CartPole-v1", model, frame_stack=3)
    return Trained(folder, model, lambda: VecFrameStack(make_vec_env("CartPole-v1"), 3))


@pytest.fixture(scope="module", params=["timed", "stacked"])
def teacher(request: pytest.FixtureRequest) -> Trained:
    return request.getfixturevalue(request.param)


WRAPPERS = {"timed": ["TimeFeatureWrapper"], "stacked": [{"StackFrames": {"n": 3}}]}


def test_a_teacher_in_its_wrappers_acts_as_stable_baselines3(
    teacher: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    how, expected = Judging(episodes=4, first_seed=50), teacher.returns(range(50, 54))
    assert api.evaluate(teacher.folder, how=how)["return"]["mean"] == pytest.approx(np.mean(expected))
    code = main(["inspect", str(teacher.folder), "--episodes", "4", "--seed", "50", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and document["judged"]["return"]["mean"] == pytest.approx(np.mean(expected))
    assert document["wrappers"] in WRAPPERS.values()


def test_a_student_s_file_makes_the_environment_again(teacher: Trained, tmp_path: Path) -> None:
    run = distill(load_config(None, SMALL, {"teacher": str(teacher.folder)}), out=tmp_path / "run")
    assert run.result["retention"]["value"] > 0.5
    file, wrappers = tmp_path / "run" / "student.safetensors", load_config(str(run.folder / "config.yaml")).env.wrappers
    assert wrappers in WRAPPERS.values()
    assert read_header(file)["provenance"]["config"]["env"]["wrappers"] == wrappers
    first, last = run.result["seeds"]["report"]
    how = Judging(episodes=last - first + 1, first_seed=first)
    again = api.evaluate(file, how=how)
    assert again["return"] == run.result["student"]["return"]
    both = api.evaluate(file, teacher=str(teacher.folder), env="CartPole-v1", how=how)
    assert both["teacher"]["return"] == run.result["teacher"]["return"] and both["return"] == again["return"]
    assert resume(run.folder).result == run.result
    shown = api.play(file, video=tmp_path / "one.gif", seed=first)
    assert shown["policies"][-1]["steps"] > 20
    with pytest.raises(InputError, match="observation space"):
        api.evaluate(file, env=EnvConfig(wrappers=["TimeFeatureWrapper", "TimeFeatureWrapper"]), how=how)
    assert load_student(file).observation_space.shape == run.student.observation_space.shape != (4,)


def test_wrappers_of_the_user_take_the_place_of_the_teacher_s(timed: Trained, tmp_path: Path) -> None:
    wanted = [{"TimeLimit": {"max_episode_steps": 30}}, {"TimeFeatureWrapper": {"max_steps": 30}}]
    overrides = [*SMALL, f"env.wrappers={json.dumps(wanted)}"]
    run = distill(load_config(None, overrides, {"teacher": str(timed.folder)}), out=tmp_path / "run")
    assert load_config(str(run.folder / "config.yaml")).env.wrappers == wanted
    assert run.result["teacher"]["return"]["mean"] <= 30


def test_a_teacher_that_policykd_trained_behind_wrappers(tmp_path: Path) -> None:
    from policykd.spine.config.schema import TrainConfig

    wrappers = [{"TimeLimit": {"max_episode_steps": 60}}, "TimeFeatureWrapper", {"StackFrames": {"n": 2}}]
    settings = {"algo": "a2c", "env": {"id": "CartPole-v1", "wrappers": wrappers}, "timesteps": 200}
    config = TrainConfig.model_validate({**settings, "evaluate": {"episodes": 3, "first_seed": 9}})
    record = api.train_teacher(config, out=tmp_path / "run")
    assert record["wrappers"] == wrappers
    again = api.evaluate(tmp_path / "run", how=Judging(episodes=3, first_seed=9))
    assert again["return"]["mean"] == record["return"]["mean"]
    assert api.inspect(tmp_path / "run")["wrappers"] == wrappers


@pytest.fixture(scope="module")
def breakout(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An Atari teacher of the zoo's shape, after a few steps."""
    import ale_py  # noqa: F401 (registers the games)

    name = "BreakoutNoFrameskip-v4"
    venv = VecFrameStack(make_atari_env(name, 2, seed=0), 4)
    model = PPO("CnnPolicy", venv, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu").learn(64)
    wrapper = ["stable_baselines3.common.atari_wrappers.AtariWrapper"]
    folder = saved(tmp_path_factory.mktemp("atari"), name, model, env_wrapper=wrapper, frame_stack=4, normalize=False)
    return Trained(folder, model, lambda: VecFrameStack(make_atari_env(name), 4))


def test_an_atari_teacher_of_the_zoo(breakout: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    teacher = load_teacher(breakout.folder)
    assert teacher.info.wrappers == (("AtariWrapper", {}), ("StackFrames", {"n": 4}))
    venv = breakout.make()
    venv.seed(11)
    venv.action_space.seed(11)
    observation, seen = venv.reset(), []
    for _ in range(60):
        seen.append(observation.copy())
        observation = venv.step(np.array([venv.action_space.sample()]))[0]
    frames = np.concatenate(seen)
    turned = teacher.fitted(venv.observation_space)
    expected, _ = breakout.model.predict(frames.transpose(0, 3, 1, 2), deterministic=True)
    assert np.array_equal(turned.predict(frames, deterministic=True)[0], expected)
    code = main(["inspect", str(breakout.folder), "--episodes", "3", "--seed", "50", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and document["wrappers"] == ["AtariWrapper", {"StackFrames": {"n": 4}}]
    assert document["judged"]["return"]["mean"] == pytest.approx(np.mean(breakout.returns(range(50, 53))))
    with pytest.raises(InputError, match="28224 numbers"):
        distill(load_config(None, SMALL, {"teacher": str(breakout.folder)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
