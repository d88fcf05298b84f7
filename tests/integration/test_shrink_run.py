"""Whole searches on real teachers, made small: what a run of `policykd shrink` leaves, and what it may never do.

Episodes are cut to 60 steps and the gate is easy, so that each takes seconds; what is claimed here means nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sb3_contrib import MaskablePPO, RecurrentPPO

from policykd import api
from policykd.evaluation.gate import ERROR
from policykd.search.run import shrink_config
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import load_config
from policykd.spine.errors import Interrupted
from policykd.students.load import load_student
from policykd.students.spec import MemberSpec
from tests.house.rules import ROOT
from tests.support.masked import Targets
from tests.support.runs import Notes, StopsBehind

SCHEMA = json.loads((ROOT / "tests" / "schema" / "result.schema.json").read_text())
SHORT = ("env.wrappers=[{TimeLimit: {max_episode_steps: 60}}]",)
TINY = [
    *("rollout.rounds=4", "rollout.n_envs=6", "rollout.n_steps=60", "update.n_updates=40", "device=cpu"),
    *("student.width=[1,2,8]", "student.depth=[0,1]", "search.generations=2", "search.refine_rounds=3"),
    *("search.seeds=2", "evaluate.select_episodes=8", "gate.least_episodes=20", "gate.most_episodes=100"),
]
FEW = ("search.generations=1", "search.seeds=1", "gate.most_episodes=40")


def config(*more: str, keep: float = 0.5, **named: Any) -> Any:
    return shrink_config(load_config(None, [*TINY, *more], named, keep=keep))


def documents(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    result = json.loads((folder / "result.json").read_text())
    jsonschema.validate(result, SCHEMA)
    frontier = json.loads((folder / "frontier.json").read_text())
    assert frontier["gate"] == result["gate"]
    return result, frontier["members"]


def checked(run: api.Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What holds of every search."""
    result, members = documents(run.folder)
    assert result == run.result
    gate = result["gate"]
    assert gate["passed"] == (gate["lower"] >= gate["keep"] - gate["margin"]) == run.passed
    assert gate["error"] <= ERROR
    low, high = result["retention"]["ci95"]
    assert gate["lower"] <= low + 1e-6, "the interval at the smaller error is the wider one"
    assert low <= result["retention"]["value"] <= high
    first, last = result["seeds"]["report"]
    most = json_config(run.folder)["gate"]["most_episodes"]
    assert first == 10_000 + (gate["attempts"] - 1) * most
    assert last - first + 1 == result["episodes"] <= most
    assert load_student(run.folder).footprint.params == result["student"]["params"]
    names = Counter((m["depth"], m["width"], m["seed"]) for m in members)
    assert set(names.values()) == {1}
    assert [m["params"] for m in members] == sorted(m["params"] for m in members)
    if run.passed:
        (chosen,) = (m for m in members if m["status"] == "chosen")
        assert chosen["params"] == result["student"]["params"]
        assert chosen["interval"][0] == gate["lower"]
    else:
        assert not [m for m in members if m["status"] == "chosen"]
    assert (run.folder / "report.html").is_file()
    assert (run.folder / "analysis.json").is_file()
    return result, members


def json_config(folder: Path) -> dict[str, Any]:
    return load_config(str(folder / "config.yaml")).model_dump(mode="json")


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.shrink(config(*SHORT), out=tmp_path_factory.mktemp("shrink") / "run")


def test_the_smallest_that_passes_is_kept_with_its_proof(passed: api.Run) -> None:
    result, members = checked(passed)
    assert passed.passed
    assert result["gate"]["claim"] == "non-inferior to 50 %, margin 2 points"
    assert result["retention"]["interval"] == "betting"
    assert result["compression"] > 1000
    smaller = [m for m in members if m["params"] < result["student"]["params"]]
    assert all(m["status"] in ("failed", "dropped") for m in smaller)
    assert {MemberSpec(m["depth"], m["width"]) for m in members} <= {
        MemberSpec(d, w) for d, w in ((0, 0), (1, 1), (1, 2), (1, 8))
    }


def test_one_seed_is_one_student_and_one_frontier(passed: api.Run, tmp_path: Path) -> None:
    again = api.shrink(config(*SHORT), out=tmp_path / "run")
    first, second = ((run.folder / "student.safetensors").read_bytes() for run in (passed, again))
    assert first == second
    ours, theirs = (documents(run.folder)[1] for run in (passed, again))
    assert [m | {"latency_us": 0} for m in ours] == [m | {"latency_us": 0} for m in theirs]
    assert passed.result["gate"] == again.result["gate"]


def test_where_nothing_passes_the_best_is_there(tmp_path: Path) -> None:
    notes = Notes()
    run = api.shrink(config(*SHORT, "update.n_updates=1", keep=1.5), out=tmp_path / "run", tracker=notes)
    result, members = checked(run)
    assert run.passed is False
    assert result["gate"]["attempts"] == 1
    assert result["diagnosis"]["limit"] in ("capacity", "data", "horizon")
    assert all(line in notes.lines for line in result["diagnosis"]["lines"])
    assert "passed" not in {m["status"] for m in members}


def test_continuous_actions(tmp_path: Path) -> None:
    """Pendulum's returns are negative, its students have a spread; and hardly one is any good after this."""
    run = api.shrink(
        config("env.wrappers=[{TimeLimit: {max_episode_steps: 40}}]", teacher="builtin:pendulum", keep=0.9),
        out=tmp_path / "run",
    )
    result, members = checked(run)
    assert result["teacher"]["return"]["mean"] < 0
    assert len(members) >= 4


def test_a_masked_teacher_in_an_environment_of_this_process(tmp_path: Path) -> None:
    """`Targets` asserts that nobody takes a masked action."""
    model = MaskablePPO("MlpPolicy", Targets(), n_steps=256, gamma=0.4, learning_rate=3e-3, seed=0, device="cpu")
    model.learn(1024)
    run = api.shrink(config("rollout.n_steps=20", *FEW, keep=0.2), teacher=model, env=Targets, out=tmp_path / "run")
    result, _ = checked(run)
    assert result["teacher"]["algo"] == "maskable_ppo"
    assert run.student.masked


def test_a_recurrent_teacher(tmp_path: Path) -> None:
    model = RecurrentPPO(
        "MlpLstmPolicy",
        "CartPole-v1",
        n_steps=128,
        n_epochs=6,
        gamma=0.98,
        learning_rate=3e-3,
        seed=0,
        device="cpu",
        policy_kwargs={"lstm_hidden_size": 16, "enable_critic_lstm": False},
    )
    model.learn(2048).save(tmp_path / "model.zip")
    named = {"teacher": str(tmp_path / "model.zip"), "env": "CartPole-v1"}
    run = api.shrink(config(*SHORT, *FEW, keep=0.2, **named), out=tmp_path / "run")
    result, _ = checked(run)
    assert result["teacher"]["algo"] == "recurrent_ppo"
    assert 0 <= result["agreement"] <= 1


def test_a_limit_of_time_is_kept(tmp_path: Path) -> None:
    run = api.shrink(config(*SHORT, max_us=50.0), out=tmp_path / "run")
    _, members = checked(run)
    assert all(0 < m["latency_us"] <= 50 for m in members)
    known = RunFolder(run.folder, resume=True).load_facts("latency")
    assert known is not None
    assert set(known) == {"0x0", "1x1", "1x2", "1x8"}


def test_a_stopped_search_says_how_to_go_on_and_ends_the_same(passed: api.Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flag = StopsBehind(out / "checkpoints" / "judged.json")
    with pytest.raises(Interrupted, match=f"continue with --resume {out}"):
        api.shrink(config(*SHORT), out=out, stop=flag)
    resumed = api.resume(out)
    first, second = ((run.folder / "student.safetensors").read_bytes() for run in (passed, resumed))
    assert first == second
    assert resumed.result["gate"] == passed.result["gate"]
    notes = Notes()
    assert api.resume(out, tracker=notes).result == resumed.result
    assert "finished" in notes.lines[0]


def test_distill_with_a_demand_uses_the_gate(tmp_path: Path) -> None:
    overrides = [*SHORT, "rollout.rounds=2", "update.n_updates=100", "student.width=8", "gate.least_episodes=20"]
    overrides += ["gate.most_episodes=60", "evaluate.select_episodes=4"]
    held = api.distill(load_config(None, [*overrides, "gate.keep=0.3"], {}), out=tmp_path / "a").result
    jsonschema.validate(held, SCHEMA)
    assert held["gate"]["passed"] is True
    assert held["gate"]["error"] == ERROR, "one attempt has all of it"
    assert held["gate"]["lower"] == held["retention"]["ci95"][0]
    assert held["retention"]["interval"] == "betting"
    assert 20 <= held["episodes"] <= 60
    plain = api.distill(load_config(None, [*overrides[:4], "evaluate.episodes=5"], {}), out=tmp_path / "b").result
    jsonschema.validate(plain, SCHEMA)
    assert "gate" not in plain
    assert plain["retention"]["interval"] == "bootstrap"
    assert plain["episodes"] == 5
