"""Fails when held-out states are learned from, are a part of an environment, or a run goes on against its patience."""

from __future__ import annotations

import json

import pytest
import torch

import policykd
from policykd.learn.rounds.held_out import HeldOut, held_rows
from policykd.loss.distributions import Categorical
from policykd.loss.losses import Loss
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError, Interrupted
from tests.support.runs import StopsBehind


def test_whole_environments_are_held_out_and_others_in_each_round() -> None:
    env = torch.arange(8).repeat(5)
    seen = set[int]()
    for index in range(4):
        out = held_rows(env, 0.25, 8, index)
        slots = set(env[out].tolist())
        assert len(slots) == 2 and not out[[e not in slots for e in env.tolist()]].any()
        assert not slots & seen
        seen |= slots
    assert held_rows(env, 0.01, 8, 0).sum() == 5, "at least one environment"


def test_the_best_weights_are_kept_and_patience_counts_from_them() -> None:
    held = HeldOut()
    kept = held.taken(torch.zeros(3, 1), torch.tensor([[2.0, 0.0]] * 3), torch.tensor([True, False, True]))
    assert len(kept[0]) == 1 and len(held.inputs[0]) == 2
    for number, logit in enumerate([0.0, 1.5, 1.0, 0.5]):
        members = [lambda x, z=logit: torch.tensor([[z, 0.0]]).expand(len(x), 2)]
        held.judge(Loss(), Categorical(2), members, torch.full((2,), float(number)))
        assert held.over(2) == (number == 3)
    assert held.best_round == 1 and held.best is not None and held.best.tolist() == [1.0, 1.0]
    assert not held.over(None)


def test_a_run_ends_early_with_a_student_of_its_best_round(tmp_path) -> None:
    short = ["rollout.rounds=6", "rollout.timesteps=6000", "evaluate.episodes=4", "evaluate.select_episodes=3"]
    # a learning rate that only destroys, so that the first rounds are the best
    overrides = [
        *short,
        "update.final_learning_rate=1.0",
        "data.held_out=0.3",
        "update.patience=1",
        "update.learning_rate=1.0",
    ]
    run = policykd.distill(load_config(None, overrides), out=tmp_path / "run")
    assert run.result["timesteps"] < 6000
    assert (run.folder / "student.safetensors").is_file()


SHORT = ["rollout.timesteps=3000", "update.n_updates=20", "evaluate.episodes=2", "evaluate.select_episodes=2"]


def test_rounds_are_compared_by_one_loss_whatever_each_learns_by(tmp_path, monkeypatch) -> None:
    by, judge = list[Loss](), HeldOut.judge
    monkeypatch.setattr(HeldOut, "judge", lambda held, loss, *rest: (by.append(loss), judge(held, loss, *rest)))
    changing = ["loss.temperature=4", "loss.alpha=0.5", "loss.adapt=both", "loss.hard_rounds=1", "data.held_out=0.3"]
    policykd.distill(load_config(None, [*SHORT, *changing, "rollout.rounds=3"]), out=tmp_path / "run")
    assert by == [Loss(temperature=4.0, alpha=0.5)] * 3


@pytest.mark.slow
def test_a_step_that_ended_early_is_not_done_again(tmp_path) -> None:
    destroyed = ["data.held_out=0.3", "update.patience=1", "update.learning_rate=1.0", "update.final_learning_rate=1.0"]
    chain = [
        "progressive.steps=[16]",
        "student.width=6",
        "rollout.rounds=8",
        "rollout.n_envs=4",
        "update.n_updates=100",
    ]
    config, out = load_config(None, [*SHORT, "update.n_updates=100", *destroyed, *chain]), tmp_path / "run"
    with pytest.raises(Interrupted):
        policykd.distill(config, out=out, stop=StopsBehind(out / "checkpoints/shard-0000.safetensors"))
    assert json.loads((out / "steps/1/checkpoints/latest.json").read_text())["round"] < 7, "it did not end early"
    assert policykd.resume(out).result["progressive"]["steps"][0]["width"] == 16


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["update.patience=2"], "set data.held_out"),
        (["update.patience=2", "data.held_out=0.1", "loss.hard_rounds=1"], "never comes to the 1 loss.hard_rounds"),
        (["data.held_out=0.1", "student.kind=gru"], "with a gru, which learns whole sequences"),
        (["data.held_out=0.1", "search.attempts=1"], "not there in a search"),
    ],
)
def test_what_cannot_be_held_out_is_refused(overrides, says) -> None:
    with pytest.raises(InputError, match=says):
        load_config(None, overrides)
