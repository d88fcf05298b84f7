"""`policykd export` and `policykd verify` as their user runs them: a distilled student, whole episodes, messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policykd import api
from policykd.cli.main import main
from policykd.exports.bundle import Wishes
from policykd.spine.config.load import load_config
from tests.support.masked import MAKERS

SMALL = ["rollout.rounds=3", "rollout.timesteps=3000", "update.n_updates=100", "evaluate.episodes=5",
         "evaluate.select_episodes=3", "device=cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "run"
    return api.distill(load_config(None, SMALL), out=out).folder


def test_several_targets_are_written_verified_and_verified_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "onnx,c,torch,sb3", "--episodes", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["onnx", "c", "torch", "sb3"]
    for name, document in said.items():
        folder = Path(document["folder"])
        assert folder == run / "exports" / name
        assert document["verified"]["passed"] and document["verified"]["episodes"]["count"] == 3
        assert document["verified"]["episodes"]["equal"] == 3
        card = (folder / "README.md").read_text()
        assert "CartPole-v1" in card and "policykd verify" in card and "{" + "name}" not in card
        words = ["verify", str(folder), "--episodes", "2"]
        if name != "onnx":
            assert main(words) == 2
            assert "--trust" in capsys.readouterr().err
            words.append("--trust")
        assert main(words) == 0
        assert "passed" in capsys.readouterr().out
    assert main(["export", str(run), "--to", "onnx"]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_masked_student_is_played_within_its_masks(tmp_path: Path) -> None:
    from tests.integration.test_masked_run import small, trained

    teacher = trained("discrete")
    student = api.distill(small(), teacher=teacher, env=MAKERS["discrete"], out=tmp_path / "run").student
    for name in ("onnx", "c", "sb3"):
        (document,) = api.export(student, name, tmp_path / name, how=Wishes(env=MAKERS["discrete"]))
        assert document["verified"]["episodes"]["equal"] == 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "none"], "no such folder"),
        (["verify", "."], "no manifest.json"),
        (["verify", ".", "--episodes", "1"], "expected 2 or more"),
        (["export", "none", "--to", "c"], "no such file"),
        (["export", "builtin:cartpole", "--to", "c"], "builtin:cartpole"),
        (["export", "RUN", "--to", "exe"], "no such target"),
        (["export", "RUN", "--to", "onnx", "--opset", "40", "--out", "new"], "opset 40"),
        (["export", "RUN", "--to", "onnx", "--vectors", "none", "--out", "new"], "recorded or synthetic"),
        (["export", "RUN", "--to", "sb3", "--stochastic", "--out", "new"], "sb3"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    words: list[str], message: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([str(run) if word == "RUN" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
