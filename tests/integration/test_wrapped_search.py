"""Searches among students that see the environment through wrappers of their own, made small. Fails when sizes or the
judgement are those of what the teacher sees, when its size is a bound, or when a resumed search ends elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policykd import api
from policykd.exports.of_student import graph_of
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.learn.judging.judge import Judging
from policykd.learn.run import open_task
from policykd.learn.updates.update import Learner
from policykd.search.grid import grid, size_for
from policykd.search.run import shrink_config, with_grid
from policykd.spine.config.load import load_config
from policykd.spine.errors import Interrupted
from policykd.spine.types import Footprint
from policykd.teachers.load import load_teacher

BUILTIN = "builtin:cartpole"
TINY = [
    *("rollout.rounds=4", "rollout.n_envs=4", "rollout.n_steps=60", "update.n_updates=6", "update.batch_size=64"),
    *("search.generations=2", "search.refine_rounds=3", "search.seeds=2", "search.drivers=2", "device=cpu"),
    *("evaluate.select_episodes=8", "gate.least_episodes=20", "gate.most_episodes=40", "env.allow_import=true"),
    "env.wrappers=[{TimeLimit: {max_episode_steps: 60}}]",
]
STACKED = "student.wrappers=[{StackFrames: {n: 2}}]"
PAINTED = "tests.support.viewed:Painted"
CONV = ["student.channels=[1,2]", "student.width=[4]", "student.depth=[1]"]
KINDS: dict[str, tuple[list[str], set[int]]] = {  # and the parameters of its members
    "mlp": (["student.width=[1,2]", "student.depth=[0,1]", STACKED], {18, 13, 24}),
    "gru": (["student.kind=gru", "student.width=[1,2]", "student.wrappers=[{DelayObservation: {delay: 1}}]"], {23, 50}),
    "cnn": (["student.kind=cnn", *CONV, f"student.wrappers=['{PAINTED}', {{StackFrames: {{n: 2}}}}]"], set()),
    "multi": (["student.kind=multi", *CONV, f"student.wrappers=[{{'{PAINTED}': {{beside: true}}}}]"], set()),
}


def config(kind: str, *more: str) -> Any:
    return shrink_config(load_config(None, [*TINY, *KINDS[kind][0], *more], {}, keep=0.2))


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    members = json.loads((folder / "frontier.json").read_text())["members"]
    result = json.loads((folder / "result.json").read_text())
    return (folder / "student.safetensors").read_bytes(), [m | {"latency_us": 0} for m in members], result["gate"]


@pytest.mark.parametrize("kind", [pytest.param(one, marks=[] if one == "mlp" else pytest.mark.slow) for one in KINDS])
def test_the_search_is_among_students_of_their_own_view(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted and resumed it comes to the same end."""
    inner, calls = Learner._descend, list[int]()

    def stopping(*args: Any, **how: Any) -> Any:
        calls.append(1)
        if len(calls) == 15:
            raise Interrupted("stopped by test")
        return inner(*args, **how)

    whole = api.shrink(config(kind), out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_descend", stopping)
        with pytest.raises(Interrupted):
            api.shrink(config(kind), out=tmp_path / "run")
    resumed = api.resume(tmp_path / "run", trust=True)
    assert outcome(resumed.folder) == outcome(whole.folder)
    _, members, _ = outcome(whole.folder)
    sizes = KINDS[kind][1]
    assert not sizes or {m["params"] for m in members} <= sizes
    assert {m["constants"] for m in members} == {whole.student.footprint.constants}
    flash = c99.write(graph_of(whole.student), tmp_path, Options())["flash_bytes"]
    assert {m["bytes"] for m in members if m["params"] == whole.student.footprint.params} == {flash}
    own = config(kind).env.model_copy(update={"id": "CartPole-v1", "wrappers": [*config(kind).env.wrappers]})
    own.wrappers.extend(config(kind).student.wrappers)
    judged = api.evaluate(str(whole.folder), env=own, how=Judging(episodes=8, first_seed=1_000_000))["return"]["mean"]
    played = json.loads((whole.folder / "checkpoints" / "judged.json").read_text()).values()
    assert any(sum(returns[:8]) / 8 == pytest.approx(judged) for returns in played), "it was chosen by what it sees"


@pytest.mark.parametrize(
    ("words", "largest", "bounded"),
    [
        (["student.width=[2,64]", "student.depth=[1]"], 64, 2),
        (["student.kind=gru"], 64, 1),
        (["student.kind=cnn", "student.depth=[0]"], 32, 1),
    ],
)
def test_the_size_of_a_teacher_that_sees_other_things_is_no_bound(words: list[str], largest: int, bounded: int) -> None:
    small = load_teacher(BUILTIN).with_info(footprint=Footprint(25, 0, 25))
    picture = f"student.wrappers=['{PAINTED}']" if "student.kind=cnn" in words else STACKED
    task = with_grid(open_task(shrink_config(load_config(None, [*TINY, *words, picture], {}, keep=0.9)), small, None))
    specs = grid(task.config, task.teacher, size_for(task.teacher, None))
    assert max(spec.channels or spec.width for spec in specs) == largest
    if "student.kind=cnn" not in words:
        plain = with_grid(open_task(shrink_config(load_config(None, [*TINY, *words], {}, keep=0.9)), small, None))
        found = grid(plain.config, plain.teacher, size_for(plain.teacher, None))
        assert max(spec.width for spec in found) == bounded
