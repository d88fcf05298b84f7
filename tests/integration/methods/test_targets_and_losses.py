"""Fails when an example of losses, targets, weights or drivers does not run, does not learn, or cannot be resumed."""

from __future__ import annotations

import pytest

import policykd
from policykd.spine.config.load import load_config
from policykd.spine.errors import Interrupted
from tests.support.runs import StopsBehind

SHORT = ["rollout.rounds=4", "rollout.timesteps=8000", "evaluate.episodes=10", "evaluate.select_episodes=5"]
UNTRAINED = 0.1  # a student that has not learned falls after ten of five hundred steps


@pytest.mark.parametrize("name", ["reverse_kl", "hard_targets", "temperature", "adaptive", "weighting", "dagger"])
def test_an_example_learns(name, tmp_path) -> None:
    run = policykd.distill(load_config(f"methods/{name}", SHORT), out=tmp_path / "run")
    assert run.result["retention"]["value"] > UNTRAINED + 0.4


def test_a_resumed_run_has_the_drawn_actions_and_the_progress_of_an_unbroken_one(tmp_path) -> None:
    overrides = [*SHORT, "loss.hard=sample", "loss.alpha=0.3", "loss.adapt=alpha", "data.weighting=confidence"]
    config = load_config(None, overrides)
    whole = policykd.distill(config, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        policykd.distill(
            config, out=tmp_path / "cut", stop=StopsBehind(tmp_path / "cut" / "checkpoints" / "shard-0001.safetensors")
        )
    resumed = policykd.resume(tmp_path / "cut")
    name = "student.safetensors"
    assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
