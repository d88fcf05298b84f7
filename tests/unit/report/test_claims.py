"""Fails when the page says more than was measured: of which seeds a figure is, at which level an interval, over which
axis a curve; or when it names a command that would be refused."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from policykd.report import frontier_plot
from policykd.report.again import commands
from policykd.report.charts import Line, lines
from policykd.report.facts import members_of, number, read_facts
from policykd.report.members import members_table
from policykd.report.page import write_report
from policykd.report.pictures import differences
from policykd.report.sections import headline
from policykd.spine.tracker import TensorBoardTracker
from tests.support.run_folders import CONFIG, analysis, frontier, member, result, write_run


def _said(markup: str | None) -> str:
    """The text without its tags."""
    return unescape(re.sub(r"<[^>]*>", " ", markup or ""))


def _again(folder: Path, **documents: Any) -> str:
    return _said(commands(read_facts(write_run(folder, **documents))))


def test_states_and_the_share_that_differs_are_of_the_same_episodes(tmp_path: Path) -> None:
    text = _said(differences(read_facts(write_run(tmp_path / "new"))))
    assert "Over 900 states of the student's 10 episodes on selection seeds." in text
    assert "teacher and student differ in 16.0 %." in text and "13.0 %" not in text, "not 1 - agreement"
    old = {key: value for key, value in analysis().items() if key != "differ"}
    text = _said(differences(read_facts(write_run(tmp_path / "old", analysis=old))))
    assert "900 states" in text and "student differ" not in text


def test_the_teacher_of_the_commands_is_found_from_the_runs_folder(tmp_path: Path) -> None:
    config = "teacher: /far/teachers/ppo\nvec_normalize: /far/a b.pkl\nenv: {id: LunarLander-v3}\n"
    text = _again(tmp_path, config=config)
    assert "evaluate . --teacher /far/teachers/ppo --vec-normalize '/far/a b.pkl' --episodes 100 --seed 10000" in text
    assert "policykd play . --video both.mp4" in text, "play takes no statistics; it finds both in config.yaml"
    assert "teachers/ppo/LunarLander" not in text


def test_samples_are_judged_as_samples_again(tmp_path: Path) -> None:
    judged = "policykd evaluate . --teacher teachers/ppo/LunarLander-v2_1 --episodes 100 --seed 10000"
    assert f"{judged} --stochastic" in _again(tmp_path / "a", result=result(deterministic=False))
    assert judged in (text := _again(tmp_path / "b")) and "--stochastic" not in text


def test_envpools_episodes_are_not_those_of_evaluate(tmp_path: Path) -> None:
    assert "single environments" in _again(tmp_path / "a", result=result(backend="envpool"))
    assert "single environments" not in _again(tmp_path / "b", result=result(backend="async"))


def test_an_environment_that_is_imported_is_named_again(tmp_path: Path) -> None:
    config = "env: {id: 'mine:Env-v0', allow_import: true, wrappers: [FlattenObservation]}\n"
    text = _again(tmp_path / "id", config=config)
    for verb in ("evaluate .", "export .", "play ."):
        (line,) = re.findall(rf"policykd {verb}.*", text)
        assert line.endswith("--env mine:Env-v0 --allow-import")
    own = f"{config}student: {{wrappers: ['mine.w:Wrapper']}}\n"
    for name, one in {"w": config.replace("FlattenObservation", "{'mine.w:Wrapper': {}}"), "own": own}.items():
        text = _again(tmp_path / name, config=one)
        assert "policykd shrink --config" in text and "policykd evaluate" not in text and "EnvConfig" in text


@pytest.mark.parametrize(
    ("config", "source", "words", "verbs"),
    [
        ("env: {id: 'function:make'}\n", "zip", "env=function", ["export", "report"]),
        ("teacher: live PPO\n", "live PPO", "teacher=model", ["evaluate", "export", "play", "report"]),
        ("teacher: live PPO\nenv: {id: 'function:make'}\n", "live PPO", "env=function", ["export", "report"]),
    ],
)
def test_what_lived_in_python_is_asked_for(
    tmp_path: Path, config: str, source: str, words: str, verbs: list[str]
) -> None:
    text = _again(tmp_path, config=config, result=result(teacher={**result()["teacher"], "source": source}))
    assert words in text and re.findall(r"policykd (\w+) ", text) == verbs


def test_losses_over_steps_and_over_timesteps_are_two_charts(tmp_path: Path) -> None:
    folder = write_run(tmp_path, frontier=None)
    board = TensorBoardTracker(folder)
    for step in range(5):
        board.scalars({"loss/forward_kl": 1.0 / (1 + step), "loss/else": 1.0}, step)
        board.scalars({"loss/validation": 2.0 / (1 + step)}, 1000 * step)
    board.close()
    text = write_report(folder).read_text("utf-8")
    found = dict(re.findall(r"<h3>(Loss[^<]*)</h3>(.*?)</figure>", text))
    assert list(found) == ["Loss, in nats, over optimizer steps", "Loss on states it had not learned from, in nats"]
    assert [chart.count("<polyline") for chart in found.values()] == [1, 1]
    assert "4k" not in found["Loss, in nats, over optimizer steps"]


def test_members_say_on_which_seeds_they_were_measured(tmp_path: Path) -> None:
    listed = [
        member(56, 0.93, "failed", interval=[0.9, 0.96], bytes=288, seeds="report"),
        member(76, 0.99, "passed", seeds="select"),
    ]
    fresh = read_facts(write_run(tmp_path / "a", frontier={"members": listed, "gate": None}))
    table = members_table(fresh)
    assert '<td data-value="report">report</td>' in table and '<td data-value="select">select</td>' in table
    assert "or on fresh seeds where one was tried there" in table
    assert 'title="of its float32 constants"' in table and re.search(
        r'title="of the retention, 95 %; [^"]*error', table
    )
    plain = members_table(read_facts(write_run(tmp_path / "b")))
    assert ">seeds</button>" not in plain and "where one was tried there" not in plain
    alone = members_table(read_facts(write_run(tmp_path / "c", frontier=None)))
    assert 'title="of its file"' in alone, "bytes of result.json are those of student.safetensors"


_GATE = {"keep": 0.99, "margin": 0.02, "lower": 0.9700818, "error": 0.0125, "attempts": 1, "passed": True}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "the 97.5 % interval, attempt 1 of at most 3 on fresh seeds, is 97.01 %; at least 97.00 % was needed."),
        ({"error": None}, "The lower end of the interval, attempt 1 of at most 3 on fresh seeds, is 97.01 %"),
        ({"error": 0.00625, "attempts": 2, "lower": 0.971}, "98.75 % interval, attempt 2 of at most 3 on"),
        ({"attempts": 3, "lower": 0.96, "passed": False}, "interval of the best of 3 attempts on fresh seeds is"),
        ({"lower": 0.96}, "is 96.0 %; at least 97.0 % was needed."),
        ({"attempts": 4, "lower": 0.97}, "97.5 % interval, attempt 4 on fresh seeds, is 97.0 %; at least 97.0 %"),
        ({"attempts": None, "lower": None}, "97.5 % interval is -; at least 97.0 %"),
    ],
)  # fmt: skip
def test_the_verdict_names_its_level(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    config = f"{CONFIG}search: {{attempts: 3}}\n"
    facts = read_facts(write_run(tmp_path, result=result(gate={**_GATE, **changes}), config=config))
    assert expected in _said(headline(facts))


def test_figures_that_no_run_gives_draw_a_page(tmp_path: Path) -> None:
    tiny, small = 5e-324, 1e-300
    assert (number(tiny), number(-small), number(1e-29)) == (0.0, 0.0, 1e-29)
    odd = analysis()
    for entry in odd["disagreement"]:
        entry["share"] = [tiny] * len(entry["share"])
    sizes = [member(9, 1.0, "passed") | {"params": value} for value in (small, 0.5, -3, 0)]
    assert [one.params for one in members_of({"members": sizes}, {})] == [None] * 4
    documents = [
        {"analysis": odd},
        {"frontier": {**frontier(), "members": [*frontier()["members"], *sizes]}},
        {"result": result(teacher={**result()["teacher"], "params": small})},
        {"result": result(student={**result()["student"], "params": small})},
    ]
    for index, changes in enumerate(documents):
        write_report(write_run(tmp_path / str(index), **changes))
    with frontier_plot.settings():
        frontier_plot.draw({"members": sizes}, {"teacher": {"params": small}}).draw_without_rendering()
    far = lines([Line([(1e29, 1.0), (1e29, 2.0)], "one")], None, "t", as_percent=False)
    assert "nan" not in far
