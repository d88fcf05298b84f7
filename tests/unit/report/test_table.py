from __future__ import annotations

import io

import pytest

from policykd.report.table import (
    count,
    document_table,
    duration,
    figure,
    percent,
    print_result,
    printable,
    result_table,
    returns,
)

RESULT = {
    "format": 1,
    "deterministic": True,
    "env": "LunarLander-v3",
    "teacher": {
        "source": "a/very/long/path/" * 6 + "LunarLander-v2_1",
        "algo": "ppo",
        "params": 4996,
        "constants": 0,
        "macs": 4800,
        "return": {"mean": 244.3123, "std": 20, "ci95": [236.1, 251.2]},
    },
    "student": {
        "file": "student.safetensors",
        "params": 76,
        "constants": 16,
        "macs": 64,
        "bytes": 12345,
        "return": {"mean": 241.0, "std": 0, "ci95": [231, 250.1]},
    },
    "random": {"return": {"mean": -181.3}},
    "retention": {"value": 0.9921, "ci95": [0.98, 1.01]},
    "compression": 65.7,
    "gate": {"keep": 0.99, "margin": 0.02, "lower": 0.98, "attempts": 1, "passed": True},
    "agreement": 0.98123,
    "worst_decile": {"teacher": 120.1, "student": 99.0},
    "success": None,
    "episodes": 100,
    "seeds": {"train": 0, "select": [1_000_000, 1_000_019], "report": [10_000, 10_099]},
    "timesteps": 120_000,
    "seconds": {"baseline": 1.0, "collect": 1.2, "label": 0.0, "update": 3.3, "select": 2, "report": 4, "total": 11.5},
}


def test_the_table_of_a_run():
    lines = result_table(RESULT).splitlines()
    assert lines[0].split() == ["return", "±", "95", "%", "params", "constants", "macs", "bytes"]
    assert lines[1].split() == ["teacher", "244.3", "±", "7.55", "4,996", "0", "4,800"]
    assert lines[2].split() == ["student", "241", "±", "9.55", "76", "16", "64", "12,345"]
    assert lines[3].split() == ["random", "-181.3"]
    rest = {line[:14].strip(): line[15:].strip() for line in lines[5:]}
    assert rest["retention"] == "99.2 %, 95 % interval 98.0 % to 101.0 %"
    assert rest["gate"] == "passed: non-inferior to 99 %, margin 2 points; lower end 98.00 %"
    assert rest["compression"] == "65.7 x fewer parameters"
    assert rest["agreement"] == "98.1 % of the student's states"
    assert rest["episodes"] == "100, seeds 10000 to 10099, deterministic"
    assert rest["worst tenth"] == "teacher 120.1, student 99"
    assert rest["seconds"] == "11.5"
    assert "baseline 1.0, collect 1.2, update 3.3, select 2.0" in result_table(RESULT)
    assert max(map(len, lines)) <= 80


def test_the_gate_that_failed_and_the_one_that_was_not_asked():
    failed = {**RESULT, "gate": {"keep": 0.99, "margin": 0.02, "lower": 0.9699, "attempts": 1, "passed": False}}
    assert "FAILED: non-inferior to 99 %, margin 2 points; lower end 96.99 %" in result_table(failed)
    assert "gate" not in result_table({**RESULT, "gate": None})


def test_what_evaluate_gives():
    summary = {
        "return": {"mean": 500.0, "ci95": [500.0, 500.0]},
        "length": 500.0,
        "worst_decile": 480.0,
        "success": 0.5,
    }
    alone = {"source": "runs/a-1", "env": "X-v1", "episodes": 5, "seeds": [3, 7], "deterministic": False, **summary}
    text = result_table(alone)
    assert "policy        500 ± 0" in text
    assert "5, seeds 3 to 7, stochastic" in text
    assert "worst tenth  policy 480" in text
    assert "success      50.0 %" in text
    both = result_table({**alone, "teacher": {"source": "t.zip", **summary}, "random": summary})
    assert "teacher      t.zip\n" in both
    assert "worst tenth  policy 480, teacher 480, random 480" in both


def test_an_empty_result_is_no_crash():
    assert result_table({}) == "\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_colour_only_on_a_terminal(terminal, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    stream = Stream()
    print_result({**RESULT, "gate": {**RESULT["gate"], "passed": False}}, stream)
    assert ("\x1b[" in stream.getvalue()) is terminal
    if not terminal:
        assert stream.getvalue().startswith(" " * 11)
        assert "FAILED" in stream.getvalue()


def test_nothing_from_a_file_drives_the_terminal():
    hostile = "\x1b[2J[red]x\r\n\x07\u202e"
    texts = [printable(hostile), document_table({hostile: hostile, "b": [hostile], "c": {hostile: {hostile: hostile}}})]
    texts += [result_table({"env": hostile, "teacher": {"source": hostile, "algo": hostile}})]
    for text in texts:
        assert not set("\x1b\r\x07\u202e") & set(text)
        assert "[red]x" in text


def test_documents():
    document = {
        "deep": {"b": {"c": [1, 2.5]}, "a": None},
        "kind": "teacher",
        "flag": False,
        "layers": [[4, 256], [256, 2]],
        "many": list(range(20)),
        "long": "x" * 500,
        "policies": [{"label": "student", "return": 500.0, "steps": 7}],
        "nothing": {},
    }
    lines = document_table(document).splitlines()
    assert [line.split()[0] for line in lines] == [
        *("kind", "flag", "layers", "many", "long", "policies", "student", "nothing", "deep", "a", "b", "c")
    ]
    text = "\n".join(lines)
    for cell in (
        "[4, 256], [256, 2]",
        "0, 1, 2, 3, 4, 5, ... (20)",
        "return 500, steps 7",
        "1, 2.5",
        "no",
        "x" * 197 + "...",
    ):
        assert cell in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.0123456, "0.01235"), (244.31, "244.3"), (12345, "12,345"), (-1500.4, "-1,500")],
)
def test_figure(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(("value", "text"), [(950, "950"), (41_234, "41.2k"), (1_050_000, "1.05M"), (2e9, "2G")])
def test_count(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.84, "0.8 s"), (9.96, "10 s"), (59.6, "1:00"), (187, "3:07"), (3723, "1:02:03")]
)
def test_duration(value, text):
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "100.0 %"), (0.99989, "99.98 %"), (0.5, "50.0 %"), (1.0004, "100.0 %"), (-0.1, "-10.0 %")]
)
def test_percent(value, text):
    assert percent(value) == text


@pytest.mark.parametrize("summary", [None, {}, {"mean": None}])
def test_returns_that_are_missing(summary):
    assert returns(summary) == "-"
