"""Fails when a ranking compares returns of different environments, lets one candidate act where another may not, or
when its table, notes or figures do not say whose they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO

from policykd import api
from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.learn.judging.judge import Judging
from policykd.report.ranking import ranking_table
from policykd.rollout.envs import EnvSpec
from policykd.spine.artifact import save_artifact
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.spine.types import Turn
from policykd.students.load import load_student
from policykd.teachers.load import load_teacher
from tests.support.core import Quiet
from tests.support.masked import Targets
from tests.support.runs import Notes

CARTPOLE = "builtin:cartpole"
TARGETS = "policykd-test/Ranked-v0"
SMALL = ("rollout.rounds=2", "update.n_updates=20", "evaluate.episodes=5", "evaluate.select_episodes=2", "device=cpu")
SHORT = ("env.wrappers=[{TimeLimit: {max_episode_steps: 50}}]", "rollout.timesteps=2000")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of episodes that end after 50 steps."""
    out = tmp_path_factory.mktemp("ranked") / "shortrun"
    return api.distill(load_config(None, [*SMALL, *SHORT], {"teacher": CARTPOLE}), out=out).folder


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained teachers: with masks, without, and with a memory."""
    if TARGETS not in gym.registry:
        gym.register(TARGETS, Targets)
    folder, found = tmp_path_factory.mktemp("zips"), {}
    makers: dict[str, Any] = {
        "masked": lambda: MaskablePPO("MlpPolicy", Targets(), seed=0, device="cpu"),
        "unmasked": lambda: PPO("MlpPolicy", Targets(), seed=0, device="cpu"),
        "recurrent": lambda: RecurrentPPO(
            "MlpLstmPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs={"lstm_hidden_size": 8}
        ),
    }
    for name, make in makers.items():
        found[name] = str(folder / f"{name}.zip")
        make().save(found[name])
    return found


def test_other_wrappers_are_another_environment(run: Path) -> None:
    for pair in ([run, CARTPOLE], [CARTPOLE, run]):
        with pytest.raises(InputError, match=r"TimeLimit.*max_episode_steps.*50.*--env") as caught:
            api.rank(pair, how=Judging(5))
        assert "\n" not in str(caught.value)


def test_an_environment_that_is_named_is_one_for_all(run: Path) -> None:
    notes = Notes()
    ranked = api.rank([CARTPOLE, run], env="CartPole-v1", how=Judging(5), tracker=notes)
    assert [one["judged"]["length"] <= 50 for one in ranked] == [True, True]
    assert any("TimeLimit" in line and str(run) in line for line in notes.lines), "whose wrappers these are is said"
    whole = EnvConfig(id="CartPole-v1", wrappers=[{"TimeLimit": {"max_episode_steps": 20}}])
    ranked = api.rank([run, CARTPOLE], env=whole, how=Judging(3))
    assert {one["judged"]["length"] <= 20 for one in ranked} == {True}


def test_students_of_different_environments_are_refused_though_one_is_named(run: Path, tmp_path: Path) -> None:
    plain = api.distill(load_config(None, [*SMALL, SHORT[1]], {"teacher": CARTPOLE}), out=tmp_path / "plain").folder
    with pytest.raises(InputError, match="EnvConfig"):
        api.rank([plain, run], env="CartPole-v1", how=Judging(2))


@pytest.mark.parametrize("order", [("masked", "unmasked"), ("unmasked", "masked")])
def test_one_masked_candidate_masks_all_and_chance(order: tuple[str, str], zips: dict[str, str]) -> None:
    # The environment asserts that nobody takes a masked action.
    ranked = api.rank([zips[name] for name in order], env=TARGETS, how=Judging(5))
    random = {one["judged"]["random"]["mean"] for one in ranked}
    assert len(random) == 1
    alone = api.rank([zips["masked"]], env=TARGETS, how=Judging(5))[0]["judged"]
    assert random == {alone["random"]["mean"]}


def test_a_student_has_its_source_and_a_name_in_the_table(run: Path) -> None:
    described = api.inspect(run)
    assert described["source"] == str(run)
    assert list(described)[:4] == ["kind", "source", "file", "bytes"]
    ranked = api.rank([run], how=Judging(2))
    assert ranked[0]["source"] == str(run)
    assert "shortrun" in ranking_table(ranked)


def test_a_header_does_not_name_its_own_source(run: Path, tmp_path: Path) -> None:
    tensors, document = load_student(run).to_artifact()
    path = tmp_path / "odd.safetensors"
    save_artifact(path, tensors, {**document, "source": "builtin:cartpole", "kind": "teacher"})
    described = api.inspect(path)
    assert (described["source"], described["kind"]) == (str(path), "student")


def test_a_note_says_which_file_it_is_about(zips: dict[str, str]) -> None:
    notes = Notes()
    api.rank([zips["recurrent"], CARTPOLE], env="CartPole-v1", how=Judging(2), tracker=notes)
    memory = [line for line in notes.lines if "LSTM" in line]
    assert len(memory) == 1 and memory[0].startswith(f"{zips['recurrent']}: ")
    assert all(line.count(zips["recurrent"]) <= 1 for line in notes.lines)
    notes = Notes()
    api.evaluate(zips["recurrent"], env="CartPole-v1", how=Judging(2), tracker=notes)
    assert any(line.startswith(f"{zips['recurrent']}: ") for line in notes.lines)
    assert "the student has none" not in "".join(notes.lines)


def test_entropy_under_masks_is_that_of_what_is_allowed(zips: dict[str, str]) -> None:
    judged = api.rank([zips["masked"]], env=TARGETS, how=Judging(4))[0]["judged"]
    teacher = load_teacher(zips["masked"])
    spec = EnvSpec(TARGETS, masked=True)
    seen = run_episodes(spec, policy_actor(teacher, True, 0), Judging(4).seeds, Quiet(), keep_visited=4096)
    logits = teacher.distribution_params(torch.from_numpy(seen.visited)).double()
    p = torch.softmax(torch.where(torch.from_numpy(seen.masks), logits, -torch.inf), -1)
    expected = -torch.xlogy(p, p).sum(-1).mean()
    assert 0 < judged["entropy"] == pytest.approx(float(expected), rel=1e-4)
    assert judged["entropy"] < np.log(2) + 1e-6  # two of four actions are allowed


def test_entropy_with_a_memory_is_counted_while_it_remembers(zips: dict[str, str]) -> None:
    judged = api.rank([zips["recurrent"]], env="CartPole-v1", how=Judging(4))[0]["judged"]
    model = RecurrentPPO.load(zips["recurrent"], device="cpu")
    found = []
    for seed in Judging(4).seeds:
        env = gym.make("CartPole-v1")
        observation, over, state = env.reset(seed=seed)[0], False, None
        while not over:
            zeros = torch.zeros(1, 1, 8)
            before = (zeros, zeros) if state is None else tuple(torch.from_numpy(part) for part in state)
            with torch.no_grad():
                seen = torch.as_tensor(observation[None])
                start = torch.tensor([float(state is None)])
                now, _ = model.policy.get_distribution(seen, before, start)
            found.append(float(now.distribution.entropy()))
            action, state = model.predict(observation, state, deterministic=True)
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
    assert judged["entropy"] == pytest.approx(np.mean(found), rel=1e-5)


def test_agreement_beside_a_memory_decodes_each_by_its_own_map() -> None:
    from stable_baselines3 import SAC

    from policykd.evaluation.watched import agreement_in, watched

    torch.manual_seed(0)
    sac = SAC("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=10, policy_kwargs={"net_arch": [4]})
    memory = RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", device="cpu", policy_kwargs={"lstm_hidden_size": 4})
    with torch.no_grad():
        sac.policy.actor.mu.bias.fill_(1.0)  # about 2 tanh(1) = 1.52 in the environment
        memory.policy.action_net.bias.fill_(1.5)
    policy, teacher = load_teacher(sac), load_teacher(memory)
    beside = policy_actor(teacher, True, 0)
    same = []

    class Both:
        takes_turn = True
        own = policy_actor(policy, True, 0)

        def __call__(self, observation: np.ndarray, turn: Turn) -> np.ndarray:
            a, b = self.own(observation, turn), beside(observation, turn)
            same.extend((np.abs(a - b) <= 0.05 * 4).all(-1))
            return a

    spec = EnvSpec("Pendulum-v1")
    run_episodes(spec, Both(), range(3), Quiet())
    actor = watched(policy_actor(policy, True, 0), teacher)
    episodes = run_episodes(spec, actor, range(3), Quiet())
    assert 0.2 < np.mean(same) == pytest.approx(agreement_in(episodes, actor, teacher, policy))
    assert isinstance(policy.action_space, spaces.Box)


def test_one_source_needs_no_list() -> None:
    assert [one["source"] for one in api.rank(CARTPOLE, how=Judging(2))] == [CARTPOLE]
    with pytest.raises(InputError, match=r"^none\.zip: no such file"):
        api.rank(Path("none.zip"), how=Judging(2))


def test_a_function_makes_the_environment_as_in_distill() -> None:
    def short() -> Any:
        return gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 60)

    assert api.evaluate(CARTPOLE, env=short, how=Judging(3))["length"] == 60
    both = api.evaluate(CARTPOLE, env=short, teacher=CARTPOLE, how=Judging(3))
    assert both["agreement"] == 1.0 and both["env"] == "short"
    assert api.rank(CARTPOLE, env=short, how=Judging(3))[0]["judged"]["length"] == 60
    for call in (api.evaluate, api.rank):
        for wrong in (3, {"id": "CartPole-v1"}):
            with pytest.raises(InputError, match="env is a") as caught:
                call(CARTPOLE, env=wrong, how=Judging(2))
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"play: env is a function") as caught:
        api.play(CARTPOLE, env=short)
    assert "\n" not in str(caught.value)


def test_statistics_are_applied_to_every_teacher_that_brings_none(tmp_path: Path) -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]), norm_reward=False)
    model = PPO("MlpPolicy", env, n_steps=512, device="cpu", seed=1).learn(4000)
    model.save(tmp_path / "mine.zip")
    env.save(str(tmp_path / "stats.pkl"))
    source, how = str(tmp_path / "mine.zip"), Judging(4, vec_normalize=str(tmp_path / "stats.pkl"))
    found = api.evaluate(source, teacher=source, env="CartPole-v1", how=how)
    assert found["agreement"] == 1.0 and found["retention"]["value"] == 1.0
    folder = tmp_path / "brings"  # as `policykd train` writes it
    folder.mkdir()
    shutil.copy(source, folder / "teacher.zip")
    env.obs_rms.mean += 3.0
    env.save(str(folder / "vecnormalize.pkl"))  # worse ones, but its own
    alone = api.evaluate(folder, env="CartPole-v1", how=Judging(4))
    beside = api.evaluate(folder, teacher=source, env="CartPole-v1", how=how)
    assert beside["return"] == alone["return"] != found["return"]
