from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from policykd.report.console import BarTracker, LineTracker, console_tracker, figures


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(tracker, clock, rounds=3, seconds=1.0):
    tracker.stage("baseline", total=20)
    tracker.advance(20)
    for index in range(rounds):
        for stage in ("collect", "label", "update", "select"):
            tracker.stage(stage, round=index, rounds=rounds, total=10)
            clock.now += seconds / 4
            tracker.advance(10)
        tracker.status(kl=0.5 / (index + 1), agreement=0.98, timesteps_per_s=41_234.0)
    tracker.stage("report", total=300)
    tracker.close()


def test_lines_one_for_each_stage_and_round():
    stream, clock = io.StringIO(), Clock()
    run(LineTracker(stream, clock), clock)
    assert stream.getvalue().splitlines() == [
        "baseline",
        "round 1/3  KL 0.5  agreement 98.0 %  41.2k steps/s  1.0 s",
        "round 2/3  KL 0.25  agreement 98.0 %  41.2k steps/s  1.0 s",
        "round 3/3  KL 0.167  agreement 98.0 %  41.2k steps/s  1.0 s",
        "report",
    ]


def test_many_rounds_do_not_flood():
    stream, clock = io.StringIO(), Clock()
    run(LineTracker(stream, clock), clock, rounds=1001)
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("round")]
    assert len(lines) <= 51
    assert lines[-1].startswith("round 1001/1001")


def test_a_long_stage_says_how_far_it_is():
    stream, clock = io.StringIO(), Clock()
    with LineTracker(stream, clock) as tracker:
        tracker.stage("train", total=1000)
        tracker.status(**{"return": 12.3})
        for _ in range(100):
            clock.now += 1.0
            tracker.advance(10)
        tracker.stage("collect", round=1, rounds=2)
        clock.now += 31
        tracker.advance(5)
    assert stream.getvalue().splitlines() == [
        "train",
        *("train 30 %  return 12.3", "train 60 %  return 12.3", "train 90 %  return 12.3"),
        "round 2/2: collect  return 12.3",
        "round 2/2  return 12.3  31 s",
    ]


def test_notes_cannot_drive_the_terminal():
    stream = io.StringIO()
    with LineTracker(stream) as tracker:
        tracker.note("\x1b[2Jx")
    assert stream.getvalue() == "\\x1b[2Jx\n"


def test_figures():
    status = {"kl": 0.0123, "agreement": 0.9812, "timesteps_per_s": 1234.0, "return": 244.36, "max_q": 1e-7}
    assert figures(status) == "KL 0.0123  agreement 98.1 %  1.23k steps/s  return 244  max q 1e-07"
    assert figures(status, short=True) == "KL 0.012  agree 98.1 %  1.23k/s  return 2.4e+02  max q 1e-07"


def bar(clock, width=80):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), TextColumn("{task.fields[right]}"))
    return BarTracker(Progress(*columns, console=console, transient=True, auto_refresh=False), clock), stream


def shown(tracker):
    task = tracker._progress.tasks[0]
    return task.description, round(task.completed, 3), task.fields["right"]


def test_the_bar_runs_over_all_rounds():
    clock = Clock()
    tracker, stream = bar(clock)
    with tracker:
        tracker.stage("baseline", total=20)
        clock.now = 1.0
        tracker.advance(5)
        assert shown(tracker) == ("baseline", 0.25, "3 s left")
        tracker.stage("collect", round=0, rounds=4, total=100)
        assert shown(tracker) == ("round 1/4 collect", 0.0, "")
        clock.now = 21.0
        tracker.stage("update", round=1, rounds=4, total=400)
        tracker.status(kl=0.01, agreement=0.985)
        assert shown(tracker) == ("round 2/4 update", 0.375, "KL 0.01  agree 98.5 %  33 s left")
        tracker.advance(200)  # too soon after the last one to be drawn
        assert shown(tracker)[1] == 0.375
        clock.now = 22.0
        tracker.advance(0)
        assert shown(tracker)[1] == round((1 + 2.5 / 4) / 4, 3)
        tracker.stage("report", total=None)
        assert shown(tracker)[0] == "report"
    assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue()


def test_notes_stand_above_the_bar_and_closing_twice_is_fine():
    tracker, stream = bar(Clock())
    with tracker:
        tracker.stage("baseline", total=20)
        tracker.note("[red]a note\x1b[2J")
        tracker.close()
    assert "[red]a note\\x1b[2J" in stream.getvalue()


def test_the_bar_fits_in_80_columns():
    clock = Clock()
    tracker, stream = bar(clock)
    with tracker:
        tracker.stage("collect", round=0, rounds=16, total=10)
        clock.now = 100.0
        tracker.stage("collect", round=14, rounds=16, total=10)
        tracker.status(kl=0.000123, agreement=0.985, timesteps_per_s=123_456.0)
        tracker._progress.refresh()
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", stream.getvalue()))
    (line,) = {line.rstrip() for line in lines if "left" in line and "KL" in line}
    assert len(line) <= 80
    assert line.count("━") + line.count("╸") + line.count("╺") >= 8


@pytest.mark.parametrize(
    ("terminal", "term", "kind"),
    [(True, "xterm", BarTracker), (True, "dumb", LineTracker), (False, "xterm", LineTracker)],
)
def test_which_tracker_a_stream_gets(terminal, term, kind, monkeypatch):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setenv("TERM", term)
    assert isinstance(console_tracker(Stream()), kind)
