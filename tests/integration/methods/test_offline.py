"""Fails when learning from stored data steps an environment, does not learn, or is not the same after an interruption,
and when a collection loses or changes a shard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import policykd
from policykd.learn.methods import distill as method
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError, Interrupted
from tests.support.runs import Notes, StopsBehind

DATA = ["rollout.rounds=4", "rollout.timesteps=4000", "rollout.n_steps=250", "evaluate.select_episodes=4"]
SHORT = [*DATA, "evaluate.episodes=4", "update.n_updates=200"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policykd.collect(load_config("methods/offline", DATA), out=tmp_path_factory.mktemp("data")).folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*folder.glob("shard-*"), folder / "index.json"]}


def test_it_learns_and_steps_no_environment(data, tmp_path, monkeypatch) -> None:
    def nobody(*_: Any) -> None:
        raise AssertionError("somebody acts")

    monkeypatch.setattr(method, "collect", nobody)
    notes = Notes()
    config = load_config("methods/offline", [*SHORT, f"data={data}", "data.max_states=3500"])
    run = policykd.distill(config, out=tmp_path / "run", tracker=notes)
    assert run.result["timesteps"] == 3500
    assert "data.max_states: the first 500 of 4,000 states are left out" in notes.lines
    assert run.result["retention"]["value"] > 0.5


@pytest.mark.parametrize(
    "more",
    [
        ["loss.hard=sample", "loss.alpha=0.5"],
        pytest.param(["student.kind=gru", "student.width=8"], marks=pytest.mark.slow),  # the same, for sequences
    ],
)
def test_a_resumed_run_is_that_of_an_unbroken_one(data, tmp_path, more) -> None:
    config = load_config(None, [*SHORT, f"data={data}", "update.n_updates=10", "evaluate.episodes=2", *more])
    whole = policykd.distill(config, out=tmp_path / "whole")
    latest = tmp_path / "cut" / "checkpoints" / "state-0001.safetensors"
    with pytest.raises(Interrupted):
        policykd.distill(config, out=tmp_path / "cut", stop=StopsBehind(latest))
    resumed = policykd.resume(tmp_path / "cut")
    name = "student.safetensors"
    assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_an_interrupted_collection_goes_on_to_the_same_bytes(data, tmp_path) -> None:
    config, cut = load_config("methods/offline", DATA), tmp_path / "cut"
    with pytest.raises(Interrupted, match="--resume"):
        policykd.collect(config, out=cut, stop=StopsBehind(cut / "shard-0001.safetensors"))
    index = json.loads((cut / "index.json").read_text())
    assert (len(index["shards"]), index["complete"]) == (2, False)
    with pytest.raises(InputError, match="its collection has not ended"):
        policykd.distill(load_config(None, [*SHORT, f"data={cut}"]), out=tmp_path / "run")
    with pytest.raises(InputError, match="policykd collect --resume"):
        policykd.resume(cut)
    kept = (cut / "shard-0001.safetensors").stat().st_mtime_ns
    (cut / "shard-0002.safetensors").write_bytes(b"half")  # killed before the index knew of it
    done = policykd.resume_collection(cut)
    assert (cut / "shard-0001.safetensors").stat().st_mtime_ns == kept
    assert done.timesteps == 4000
    assert bytes_of(cut) == bytes_of(data)
    with pytest.raises(InputError, match="exists and is not empty"):
        policykd.collect(config, out=cut)


def test_a_student_acts_beside_the_teacher(data, tmp_path) -> None:
    config = load_config(None, [*SHORT, f"data={data}", "student.width=1", "student.depth=1", "update.n_updates=1"])
    student = policykd.distill(config, out=tmp_path / "run").folder / "student.safetensors"
    found = policykd.collect(load_config(None, DATA, {"student": str(student)}), out=tmp_path / "more")
    betas = [(shard["beta"], shard["return"]) for shard in found.index["shards"]]
    assert [beta for beta, _ in betas] == [1.0, 0.0, 0.0, 0.0]
    assert all(value is not None for _, value in betas[1:])  # it falls, and the teacher does not
    assert found.index["plan"]["student"] is not None
    both = load_config(None, [*SHORT, f"data={tmp_path / 'more'}"])
    with pytest.raises(InputError, match="labelled by another teacher"):
        policykd.distill(both, teacher="builtin:pendulum", env=None, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "cli", "words"),
    [
        (["data=somewhere"], {}, "policykd collect writes data and reads none"),
        (["rollout.beta.schedule=linear"], {}, "only the teacher acts"),
        ([], {"student": "nothing.safetensors"}, "no student; give a student.safetensors"),
        ([], {"trials": 3}, "tune: a setting of policykd tune"),
        (["rollout.n_envs=50000000", "rollout.n_steps=5000"], {}, "expected at most 4: raise rollout.rounds"),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(tmp_path, overrides, cli, words) -> None:
    with pytest.raises(InputError, match=words):
        policykd.collect(load_config(None, ["evaluate.select_episodes=2", *overrides], cli), out=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_nobody_acts_so_nothing_can_follow_who_does(tmp_path) -> None:
    for override in ("rollout.beta.schedule=linear", "robust={noise: 0.1, collect: true}"):
        with pytest.raises(InputError, match="has no effect with data.dir"):
            load_config(None, [f"data={tmp_path}", override])
    with pytest.raises(InputError, match="no labelled data"):
        policykd.distill(load_config(None, [f"data={tmp_path}"]), out=tmp_path / "run")
    with pytest.raises(InputError, match="collects its own data"):
        policykd.shrink(load_config(None, [f"data={tmp_path}"]), out=tmp_path / "run")
