"""Searches among students with a memory, and among those that see some keys of a Dict, made small; a search of GRUs
that is interrupted ends in the same student, the same frontier and the same verdict.

Red when a decision depends on anything that the checkpoint does not hold, or a size on what the student does not see.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from policykd import api
from policykd.learn.judging.judge import Judging
from policykd.learn.updates.update import Learner
from policykd.search import shrink
from policykd.search.run import shrink_config
from policykd.spine.config.load import load_config
from policykd.spine.errors import Interrupted
from policykd.students.gru import GruStudent
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent
from policykd.students.view import Partial, seeing
from tests.support.pictures import Patch, finder
from tests.unit.learn.test_partial import ID, PartialCartPole, teacher

TINY = [
    *("rollout.rounds=4", "rollout.n_envs=4", "rollout.n_steps=60", "update.n_updates=6", "device=cpu"),
    *("student.kind=gru", "student.width=[1,2,3,4,6]", "search.generations=2", "search.refine_rounds=3"),
    *("search.seeds=2", "evaluate.select_episodes=8", "gate.least_episodes=20", "gate.most_episodes=40"),
    *("env.wrappers=[{TimeLimit: {max_episode_steps: 60}}]", "update.batch_size=64", "search.drivers=2"),
]
MOMENTS: dict[str, tuple[Any, str, int]] = {
    "update of a family that has lost members": (Learner, "_descend", 15),
    "second generation": (Learner, "_descend", 27),
    "settle again": (shrink, "settle", 2),
}


def config(*more: str, keep: float = 0.9) -> Any:
    return shrink_config(load_config(None, [*TINY, *more], {}, keep=keep))


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    members = json.loads((folder / "frontier.json").read_text())["members"]
    result = json.loads((folder / "result.json").read_text())
    return (folder / "student.safetensors").read_bytes(), [m | {"latency_us": 0} for m in members], result["gate"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.shrink(config(), out=tmp_path_factory.mktemp("gru") / "run")


def test_a_search_of_memories_leaves_what_every_search_leaves(whole: api.Run) -> None:
    _, members, gate = outcome(whole.folder)
    assert isinstance(load_student(whole.folder), GruStudent)
    assert gate["passed"] == whole.passed and whole.result["student"]["params"] in {m["params"] for m in members}
    assert {m["depth"] for m in members} == {1} and {m["width"] for m in members} <= {1, 2, 3, 4, 6}
    assert [m["params"] for m in members] == sorted(m["params"] for m in members)
    assert {m["seed"] for m in members} == {0, 1}, "a second generation"
    assert min(len(m["curve"]) for m in members) < max(len(m["curve"]) for m in members), "some were dropped"
    assert whole.result["student"]["params"] == load_student(whole.folder).footprint.params
    assert "<svg" in (whole.folder / "report.html").read_text()


@pytest.mark.parametrize(
    "moment", [pytest.param(one, marks=[] if one == "second generation" else pytest.mark.slow) for one in MOMENTS]
)
def test_interrupted_and_resumed_comes_to_the_same_end(
    moment: str, whole: api.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, number = MOMENTS[moment]
    inner, calls = getattr(owner, name), []

    def stopping(*args: Any, **how: Any) -> Any:
        calls.append(name)
        if len(calls) == number:
            raise Interrupted("stopped by test")
        return inner(*args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping)
        with pytest.raises(Interrupted):
            api.shrink(config(), out=tmp_path / "run")
    resumed = api.resume(tmp_path / "run")
    assert outcome(resumed.folder) == outcome(whole.folder)


@pytest.fixture
def _partial() -> Any:
    gym.register(ID, entry_point=PartialCartPole)
    yield
    del gym.registry[ID]


@pytest.mark.usefixtures("_partial")
@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_the_search_is_among_students_of_the_keys(kind: str, tmp_path: Path) -> None:
    more = [f"env.id={ID}", "student.keys=[place]", "student.width=[1,2]", "search.generations=1", "search.seeds=1"]
    kinds = ["student.kind=mlp", "student.depth=[0,1]"] if kind == "mlp" else []
    run = api.shrink(config(*more, *kinds, keep=0.2), teacher=teacher(), out=tmp_path / "run")
    one, (_, members, _) = load_student(run.folder), outcome(run.folder)
    assert isinstance(one, MlpStudent if kind == "mlp" else GruStudent)
    assert list(one.observation_space) == ["place"] and one.footprint.constants == 4
    assert isinstance(seeing(one, teacher().observation_space), Partial)
    assert {(m["width"], m["params"]) for m in members} <= {
        "mlp": {(0, 6), (1, 7), (2, 12)},
        "gru": {(1, 17), (2, 38)},
    }[kind]
    assert {m["constants"] for m in members} == {4}
    judged = api.evaluate(str(run.folder), how=Judging(episodes=8, first_seed=1_000_000))["return"]["mean"]
    played = json.loads((run.folder / "checkpoints" / "judged.json").read_text()).values()
    means = [sum(returns[:8]) / 8 for returns in played]
    assert any(mean == pytest.approx(judged) for mean in means), "it was chosen by what it sees"


def test_an_interrupted_search_of_convolutions_comes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ["student.kind=cnn", "student.channels=[1,2]", "student.width=[4]", "student.depth=[1]", "env.wrappers=[]"]
    asked, how = config(*images, "rollout.n_steps=40"), {"teacher": finder(), "env": Patch}
    whole = api.shrink(asked, out=tmp_path / "whole", **how)
    inner, calls = Learner._descend, []

    def stopping(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 15:
            raise Interrupted("stopped by test")
        return inner(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_descend", stopping)
        with pytest.raises(Interrupted):
            api.shrink(asked, out=tmp_path / "run", **how)
    resumed = api.resume(tmp_path / "run", **how)
    assert outcome(resumed.folder) == outcome(whole.folder)
    assert all("channels" in member for member in outcome(whole.folder)[1])
