"""Fails when a trial looks at the report seeds, when best.yaml is not the best trial, or when an interruption or a dead
trial changes what is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import policykd
from policykd.evaluation import episodes as playing
from policykd.learn.rounds import selection
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError, Interrupted
from tests.support.runs import Notes, StopsBehind

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'policykd[tune]'")
SHORT = [
    *("rollout.rounds=2", "rollout.timesteps=2000", "rollout.n_steps=250", "evaluate.select_episodes=4"),
    *("evaluate.episodes=4", "update.n_updates=150", "tune.trials=3"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policykd.tune(load_config("methods/tuning", SHORT), out=tmp_path_factory.mktemp("tune") / "run").folder


def tried(folder: Path) -> list[tuple[float, dict[str, object]]]:
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    return [(trial["retention"], trial["settings"]) for trial in trials if trial["state"] != "failed"]


def test_the_best_settings_distil_to_the_student_that_was_proved(whole, tmp_path) -> None:
    run = policykd.distill(load_config(str(whole / "best.yaml")), out=tmp_path / "again")
    name = "student.safetensors"
    assert (run.folder / name).read_bytes() == (whole / name).read_bytes()
    result, trials = (json.loads((whole / file).read_text()) for file in ("result.json", "trials.json"))
    ended = [trial for trial in trials["trials"] if trial["state"] == "ended"]
    assert result["tune"]["retention"] == max(trial["retention"] for trial in ended)
    assert sum(result["tune"]["trials"].values()) == 3
    assert trials["trials"][0]["settings"]["update.learning_rate"] == 0.01  # as they are
    assert len({str(trial["settings"]) for trial in trials["trials"]}) == 3
    assert (whole / "report.html").is_file()
    assert policykd.resume(whole).result == result


def test_it_learns(whole) -> None:
    assert json.loads((whole / "result.json").read_text())["retention"]["value"] > 0.5


def test_trials_choose_on_the_selection_seeds_alone(tmp_path, monkeypatch) -> None:
    seen = set[int]()

    def spied(spec, actor, seeds, *rest, **more):
        seen.update(seeds)
        return playing.run_episodes(spec, actor, seeds, *rest, **more)

    monkeypatch.setattr(selection, "run_episodes", spied)
    config = load_config("methods/tuning", [*SHORT, "tune.trials=1"])
    policykd.tune(config, out=tmp_path / "run")
    assert seen == set(range(1_000_000, 1_000_004))


@pytest.mark.parametrize(
    "behind",
    [
        "trials/0001/checkpoints/state-0000.safetensors",
        pytest.param("trials/0001/config.yaml", marks=pytest.mark.slow),  # before its first round: it begins anew
    ],
)
def test_an_interrupted_search_finds_the_same(whole, tmp_path, behind) -> None:
    config, cut = load_config("methods/tuning", SHORT), tmp_path / "cut"
    with pytest.raises(Interrupted, match=r"continue with --resume \S+cut$"):
        policykd.tune(config, out=cut, stop=StopsBehind(cut / behind))
    assert (cut / "best.yaml").is_file()  # what is best so far
    notes = Notes()
    policykd.resume(cut, tracker=notes)
    assert any("had not ended" in line for line in notes.lines)
    assert (cut / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    assert (cut / "best.yaml").read_text() == (whole / "best.yaml").read_text()
    assert tried(cut) == tried(whole)


def test_the_search_ends_with_its_time_and_says_what_was_impossible(tmp_path) -> None:
    space = "{loss.kind: [mse, huber], loss.temperature: [1.0, 2.0], loss.convention: [hinton, untempered]}"
    notes = Notes()
    config = load_config(None, [*SHORT, f"tune.space={space}", "tune.trials=8", "update.n_updates=5"])
    policykd.tune(config, out=tmp_path / "run", tracker=notes)
    lines = [line for line in notes.lines if line.startswith("trial")]
    assert len(lines) == 8
    assert any("given up" in line and "temperature 2.0 has no" in line for line in lines)
    quick = load_config("methods/tuning", [*SHORT, "tune.timeout=0.01", "tune.trials=100"])
    run = policykd.tune(quick, out=tmp_path / "quick")
    assert sum(run.result["tune"]["trials"].values()) == 1


def test_nonsense_is_refused_and_leaves_nothing(tmp_path) -> None:
    for overrides, words in (
        (["tune.space={evaluate.episodes: [2, 3]}"], "cannot be tuned"),
        (["search.seeds=2"], "search: a setting of policykd shrink"),
    ):
        with pytest.raises(InputError, match=words):
            policykd.tune(load_config(None, overrides), out=tmp_path / "run")
    with pytest.raises(InputError, match="tune: a setting of policykd tune"):
        policykd.distill(load_config(None, ["tune.trials=2"]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_student_has_weights_of_8_bits_where_they_are_asked_for(tmp_path) -> None:
    little = ["rollout.timesteps=400", "rollout.n_steps=50", "update.n_updates=5", "tune.trials=1"]
    config = load_config("methods/tuning", [*SHORT, *little, "compress.int8=after"])
    found = policykd.tune(config, out=tmp_path / "run").folder
    run = policykd.distill(load_config(str(found / "best.yaml")), out=tmp_path / "again")
    name = "student.safetensors"
    assert (run.folder / name).read_bytes() == (found / name).read_bytes()
