"""Fails when a warm start, a pruned student or one of 8 bits does not learn, cannot be resumed, or is not exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import policykd
from policykd.api import Run
from policykd.exports.bundle import Wishes
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError, Interrupted
from policykd.students.mlp import MlpStudent
from tests.support.runs import StopsBehind

SHORT = ["evaluate.episodes=10", "evaluate.select_episodes=5"]
TINY = [*SHORT, "rollout.rounds=3", "rollout.n_envs=2", "rollout.n_steps=200", "update.n_updates=500"]
LITTLE = [*SHORT, "rollout.rounds=1", "rollout.n_envs=1", "rollout.n_steps=20", "update.n_updates=5"]
UNTRAINED = 0.3  # retention on Pendulum that random weights stay below


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """A student of Pendulum."""
    out = tmp_path_factory.mktemp("before") / "run"
    config = load_config(None, [*TINY, "student.width=16"], {"teacher": "builtin:pendulum"})
    policykd.distill(config, out=out)
    return out


def held(run: Run) -> float:
    return float(run.result["retention"]["value"])


def test_a_warm_start_needs_next_to_no_timesteps(before, tmp_path) -> None:
    config = load_config("methods/warm_start", [*LITTLE, "student.start=null"])
    assert held(policykd.distill(config, out=tmp_path / "cold")) < UNTRAINED
    for how in ("none", "aware"):
        words = [*LITTLE, f"student.start={before}", f"compress.int8={how}"]
        run = policykd.distill(load_config("methods/warm_start", words), out=tmp_path / how)
        assert held(run) > 0.6
    start = run.student.provenance["config"]["student"]["start"]
    assert len(start) == 64 and str(before) not in json.dumps(run.student.provenance)


def test_a_pruned_student_is_narrower_and_learns_again(before, tmp_path) -> None:
    run = policykd.distill(load_config("methods/prune", [*TINY, f"student.start={before}"]), out=tmp_path / "run")
    assert isinstance(run.student, MlpStudent)
    assert [tuple(weight.shape) for weight, _ in run.student.layers] == [(3, 6), (6, 6), (6, 1)]
    assert held(run) > 0.6


@pytest.mark.parametrize("how", ["after", "aware"])
def test_a_student_of_8_bits_learns_and_is_exported(how, tmp_path) -> None:
    config = load_config("methods/int8", [*TINY, f"compress.int8={how}", "gate.keep=0.5", "gate.margin=0.3"])
    run = policykd.distill(config, out=tmp_path / "run")
    assert held(run) > 0.6 and run.passed is not None
    assert isinstance(run.student, MlpStudent)
    for (weight, _), scale in zip(run.student.layers, run.student.scales, strict=True):
        assert torch.equal(weight, (weight / scale).round() * scale)
    found = policykd.export(run.folder, ["c", "onnx"], tmp_path / "bundle", how=Wishes(episodes=2))
    assert [bundle["verified"]["passed"] for bundle in found] == [True, True]


def test_a_resumed_run_does_not_begin_from_the_start_again(before, tmp_path) -> None:
    overrides = [*TINY, "update.n_updates=20", f"student.start={before}", "compress.int8=aware"]
    config = load_config("methods/prune", overrides)
    whole = policykd.distill(config, out=tmp_path / "whole")
    for shard in ("shard-0000.safetensors", "shard-0002.safetensors"):
        cut = tmp_path / shard
        with pytest.raises(Interrupted):
            policykd.distill(config, out=cut, stop=StopsBehind(cut / "checkpoints" / shard))
        resumed = policykd.resume(cut)
        name = "student.safetensors"
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_width_that_follows_from_the_task_is_checked_too(before, tmp_path) -> None:
    config = load_config(None, [*LITTLE, f"student.start={before}"], {"teacher": "builtin:pendulum"})
    with pytest.raises(InputError, match="a student of width 8 is narrower"):
        policykd.distill(config, out=tmp_path / "run")


def test_rounding_afterwards_finds_the_states_of_a_run_that_ended_early(tmp_path) -> None:
    early = ["data.held_out=0.5", "update.patience=1", "update.learning_rate=1", "update.final_learning_rate=1"]
    overrides = [*LITTLE, *early, "rollout.rounds=8", "rollout.n_envs=2", "compress.int8=after"]
    run = policykd.distill(load_config(None, overrides, {"teacher": "builtin:cartpole"}), out=tmp_path / "run")
    assert run.result["timesteps"] < 8 * 2 * 20  # it did end early
    assert isinstance(run.student, MlpStudent) and run.student.scales


def test_fine_tuning_of_a_pruned_student_of_8_bits_saves_what_it_proves(before, tmp_path) -> None:
    words = [*LITTLE, f"student.start={before}", "compress.int8=aware"]
    small = policykd.distill(load_config("methods/prune", words), out=tmp_path / "small")
    few = ["finetune.timesteps=60", "finetune.warmup_steps=20", "finetune.batch_size=20"]
    run = policykd.finetune(small.folder, load_config(None, [*SHORT, *few]), out=tmp_path / "run")
    again = policykd.load_student(run.folder)
    assert isinstance(again, MlpStudent) and isinstance(run.student, MlpStudent)
    for (weight, bias), (proved, own) in zip(again.layers, run.student.layers, strict=True):
        assert torch.equal(weight, proved) and torch.equal(bias, own)
    with pytest.raises(InputError, match=r"compress\.int8: of no use to policykd finetune"):
        policykd.finetune(small.folder, load_config(None, ["compress.int8=after"]), out=tmp_path / "no")
