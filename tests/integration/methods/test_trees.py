"""Fails when trees do not learn by the one loop, cannot be resumed bit for bit, or leave no rules behind."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

import policykd
from policykd.exports.bundle import Wishes
from policykd.report.page import write_report
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError, Interrupted
from policykd.students.load import load_student
from tests.support.runs import StopsBehind

pytest.importorskip("sklearn", reason="trees need scikit-learn: pip install policykd[tree]")

SHORT = ["rollout.rounds=5", "rollout.timesteps=15000", "evaluate.episodes=10", "evaluate.select_episodes=5"]
SHORT += ["student.leaves=[16,48]"]
pytestmark = pytest.mark.xdist_group("trees")  # they share one run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return policykd.distill(load_config("methods/trees", SHORT), out=tmp_path_factory.mktemp("trees") / "run")


def test_the_example_learns_and_can_be_read(run) -> None:
    assert run.result["retention"]["value"] > 0.5, "one leaf, or a random tree, holds less than 0.1"
    rules = (run.folder / "rules.txt").read_text()
    leaves = len(load_student(run.folder).nodes.value)
    assert rules.count("action ") == leaves and rules.count("if obs[") == leaves - 1
    page = write_report(run.folder).read_text()
    assert "As rules" in page and "Sensitivity to each number" in page
    assert (run.folder / "tree.svg").stat().st_size > 1000 and (run.folder / "tree.png").stat().st_size > 1000
    members = json.loads((run.folder / "frontier.json").read_text())["members"]
    assert [member["leaves"] for member in members] == [16, 48]


def test_a_resumed_run_has_the_trees_of_an_unbroken_one(run, tmp_path) -> None:
    config = load_config("methods/trees", SHORT)
    behind = tmp_path / "cut" / "checkpoints" / "shard-0002.safetensors"
    with pytest.raises(Interrupted):
        policykd.distill(config, out=tmp_path / "cut", stop=StopsBehind(behind))
    resumed = policykd.resume(tmp_path / "cut")
    name = "student.safetensors"
    assert (resumed.folder / name).read_bytes() == (run.folder / name).read_bytes()


def test_a_trained_tree_is_exported_and_proved(run, tmp_path) -> None:
    targets = ["c", "json", "torch", *(["onnx"] if find_spec("onnxruntime") else [])]
    documents = policykd.export(run.folder, to=targets, out=tmp_path / "exports", how=Wishes(episodes=2))
    for document in documents:
        verified = document["verified"]
        assert verified["passed"] and verified["vectors"]["worst"] == 0.0, document["target"]


def test_what_trees_have_no_use_for_is_refused(run, tmp_path) -> None:
    for overrides, says in (
        (["student.kind=tree", "student.width=8"], "width 8 has no effect on students of kind tree"),
        (["student.kind=tree", "loss.kind=reverse_kl"], "follows no loss"),
        (["student.leaves=8"], "leaves 8 has no effect on students of kind mlp"),
    ):
        with pytest.raises(InputError, match=says):
            load_config(None, overrides)
    with pytest.raises(InputError, match="shrink searches networks"):
        policykd.shrink(load_config(None, ["student.kind=tree"]), out=tmp_path / "s")
    with pytest.raises(InputError, match="policies of stable-baselines3 are networks"):
        policykd.export(run.folder, to="sb3", out=tmp_path / "sb3", how=Wishes(episodes=0))
