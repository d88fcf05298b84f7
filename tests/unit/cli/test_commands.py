"""The commands against an api that records: what they pass on, what they print, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import policykd
from policykd.cli.main import main
from policykd.spine.errors import ConfigError, InputError, Interrupted, NumericsError
from policykd.spine.stop import StopFlag

RESULT = {"env": "X-v1", "student": {"params": 3, "return": {"mean": 1.0, "ci95": [0.0, 2.0]}}, "episodes": 5}


class Api(types.ModuleType):
    """Stands for policykd.api; `calls` has (function, positional, keywords)."""

    def __init__(self):
        super().__init__("policykd.api")
        self.calls = []
        self.passed = None
        self.error = None
        self.answer = {"kind": "teacher", "value": float("nan")}

    def _called(self, name, args, kwargs):
        self.calls.append((name, args, kwargs))
        if self.error is not None:
            raise self.error
        for tracker in (kwargs.get("tracker"),):
            if tracker is not None:
                tracker.note("progress")

    def _run(self, name, args, kwargs):
        self._called(name, args, kwargs)
        return types.SimpleNamespace(result=RESULT, folder=Path("runs/x-1"), passed=self.passed)

    def distill(self, *args, **kwargs):
        return self._run("distill", args, kwargs)

    def resume(self, *args, **kwargs):
        return self._run("resume", args, kwargs)

    def evaluate(self, *args, **kwargs):
        self._called("evaluate", args, kwargs)
        return {**RESULT, "value": float("inf")}

    def inspect(self, *args, **kwargs):
        self._called("inspect", args, kwargs)
        return self.answer

    def play(self, *args, **kwargs):
        self._called("play", args, kwargs)
        return {"video": "v.mp4"}

    def report(self, *args, **kwargs):
        self._called("report", args, kwargs)
        return Path("runs/x-1/report.html")

    def train_teacher(self, *args, **kwargs):
        self._called("train", args, kwargs)
        return {"folder": "runs/teachers/x"}


@pytest.fixture
def api(monkeypatch):
    fake = Api()
    monkeypatch.setitem(sys.modules, "policykd.api", fake)
    monkeypatch.setattr(policykd, "api", fake, raising=False)
    return fake


def test_distill_without_arguments(api, capsys):
    assert main(["distill"]) == 0
    ((name, (config,), keywords),) = api.calls
    assert name == "distill"
    assert config == policykd.Config()
    assert keywords["out"] is None
    assert isinstance(keywords["stop"], StopFlag)
    out, err = capsys.readouterr()
    assert "student          1 ± 1       3\n" in out
    assert "policykd play runs/x-1" in out
    assert err == "progress\n"


def test_distill_options_and_overrides(api):
    words = (
        "--teacher t.zip --env E-v1 --allow-import --out o --device cpu --seed 4 --keep 0.9 --margin 0.1 --stochastic"
    )
    assert main(["distill", "student.width=[4, 8]", *words.split(), "update.learning_rate=1e-3"]) == 0
    ((_, (config,), keywords),) = api.calls
    assert keywords["out"] == Path("o")
    assert (config.teacher, config.env.id, config.env.allow_import, config.device) == ("t.zip", "E-v1", True, "cpu")
    assert (config.seed, config.gate.keep, config.gate.margin, config.student.width) == (4, 0.9, 0.1, [4, 8])
    assert config.evaluate.deterministic is False
    assert config.update.learning_rate == 0.001


@pytest.mark.parametrize(("passed", "code"), [(None, 0), (True, 0), (False, 3)])
def test_the_gate_decides_the_exit_code(api, passed, code):
    api.passed = passed
    assert main(["distill"]) == code


def test_print_config_prints_the_resolved_yaml_and_runs_nothing(api, capsys, tmp_path):
    assert main(["distill", "--print-config", "student.width=4", "--seed", "3"]) == 0
    assert api.calls == []
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    assert main(["distill", "--config", str(tmp_path / "c.yaml")]) == 0
    ((_, (config,), _),) = api.calls
    assert (config.seed, config.student.width) == (3, 4)


def test_resume_stands_alone(api, capsys):
    assert main(["distill", "--resume", "runs/x-1"]) == 0
    ((name, (folder,), _),) = api.calls
    assert (name, folder) == ("resume", Path("runs/x-1"))
    for other in (["--seed", "3"], ["--config", "cartpole"], ["seed=3"], ["--print-config"], ["--stochastic"]):
        assert main(["distill", "--resume", "runs/x-1", *other]) == 2
    assert len(api.calls) == 1
    assert capsys.readouterr().err.count("leave the other options and settings out") == 5
    assert main(["distill", "--resume", "runs/x-1", "--trust"]) == 0
    assert [keywords["trust"] for _, _, keywords in api.calls] == [False, True]


def test_evaluate(api, capsys):
    words = "evaluate s --teacher t --env E-v1 --allow-import --episodes 7 --seed 3 --stochastic"
    assert main(words.split()) == 0
    ((_, (source,), keywords),) = api.calls
    assert (source, keywords["teacher"]) == ("s", "t")
    assert (keywords["env"].id, keywords["env"].allow_import) == ("E-v1", True)
    assert (list(keywords["how"].seeds), keywords["how"].deterministic) == (list(range(3, 10)), False)
    assert "environment  X-v1" in capsys.readouterr().out


def test_json_is_all_that_stands_on_standard_output(api, capsys):
    assert main(["evaluate", "s", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {**RESULT, "value": None}
    assert err == "progress\n"
    assert main(["inspect", "s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"kind": "teacher", "value": None}


def test_inspect_and_play(api, capsys):
    assert main(["inspect", "a.zip"]) == 0
    assert "kind   teacher" in capsys.readouterr().out
    assert main(["play", "s", "--teacher", "t", "--video", "v.mp4", "--seed", "2"]) == 0
    assert "video  v.mp4" in capsys.readouterr().out
    (_, (student,), keywords) = api.calls[1]
    assert (student, keywords["teacher"], keywords["video"], keywords["seed"]) == ("s", "t", Path("v.mp4"), 2)


def test_train(api):
    assert main(["train", "--config", "teachers/cartpole", "timesteps=5", "--seed", "3", "--out", "o"]) == 0
    ((_, (config,), keywords),) = api.calls
    assert (config.algo, config.timesteps, config.seed, keywords["out"]) == ("ppo", 5, 3, Path("o"))


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (InputError("t.zip: no such file"), 2, ["policykd: t.zip: no such file"]),
        (InputError("a\x1b[2J\nb"), 2, ["policykd: a\\x1b[2J\\nb"]),
        (ConfigError(["a: wrong", "b: wrong"]), 2, ["policykd: a: wrong", "policykd: b: wrong"]),
        (NumericsError("observation: NaN"), 2, ["policykd: observation: NaN"]),
        (Interrupted("stopped by SIGTERM; continue"), 130, ["policykd: stopped by SIGTERM; continue"]),
        (KeyboardInterrupt(), 130, ["policykd: stopped"]),
    ],
)
def test_errors_become_exit_codes_and_plain_lines(api, capsys, error, code, lines):
    api.error = error
    assert main(["distill"]) == code
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", lines)


def test_a_bug_shows_its_traceback(api):
    api.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["distill"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("distil", "No such command 'distil'. Did you mean 'distill'? (see policykd --help)"),
        ("bogus", "No such command 'bogus'. (see policykd --help)"),
        ("distill --tacher x", "--teacher"),
        ("distill --seed x", "'--seed'"),
        ("distill foo.zip", "'foo.zip' is not an override: write key.sub=value (a teacher goes after --teacher)"),
        ("distill student.widht=3", "student.widht: unknown key; did you mean student.width?"),
        ("distill --keep 7", "--keep: found 7.0, expected a number above 0 and at most 2 or null"),
        ("distill --config nothere", "--config nothere: no such file"),
        ("distill --config teachers/cartpole", "this is a configuration of `policykd train`"),
        ("train --config cartpole", "this is a configuration of `policykd distill`"),
        ("train", "Missing option '--config'. (see policykd train --help)"),
        ("evaluate", "Missing argument 'STUDENT_OR_TEACHER'."),
        ("evaluate x --episodes 1", "'--episodes'"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(api, capsys, words, said):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("policykd: ")
    assert said in err
    assert api.calls == []


def test_report_names_the_page(api, capsys):
    assert main(["report", "runs/x-1"]) == 0
    assert api.calls == [("report", (Path("runs/x-1"),), {})]
    assert Path("runs/x-1/report.html").as_posix() in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command(capsys, words):
    assert main(words) == 0
    listed = capsys.readouterr().out
    for command in ("distill", "evaluate", "inspect", "play", "report", "train"):
        assert f"\n  {command} " in listed


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"policykd {policykd.__version__}\n"


def test_every_command_has_help_without_heavy_imports():
    probe = (
        "import sys, io, contextlib\nfrom policykd.cli.main import main\n"
        "for command in ('distill', 'evaluate', 'inspect', 'play', 'report', 'train'):\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n        assert main([command, '--help']) == 0\n"
        "print(sorted({'torch', 'gymnasium', 'stable_baselines3', 'tensorboard', 'rich', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "policykd", "bogus"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("policykd: No such command")
