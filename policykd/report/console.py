"""Progress for people: a bar on a terminal, plain lines elsewhere. It writes to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from policykd.report.table import count, duration, percent, printable
from policykd.spine.tracker import NullTracker

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ROUND_STAGES = ("collect", "label", "update", "select")
_REDRAW_S = 0.1  # bar: `advance` comes once per step of the environments, and must cost nothing
_QUIET_S = 30.0  # plain lines: a long stage says how far it is this often
_MAX_ROUND_LINES = 50  # plain lines: of many rounds, every n-th is shown


@dataclass
class _Stage:
    name: str
    round: int | None
    rounds: int | None
    total: int | None
    begin: float
    done: int = 0

    @property
    def fraction(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def title(self) -> str:
        if self.round is None:
            return self.name
        return f"round {self.round + 1}/{self.rounds}" if self.rounds else f"round {self.round + 1}"


def figures(status: dict[str, float], *, short: bool = False) -> str:
    """`KL 0.0123  agreement 98.1 %  41.2k steps/s`, in the order in which they came; `short` fits beside a bar."""
    parts = []
    for name, value in status.items():
        if name == "timesteps_per_s":
            parts.append(f"{count(value)}/s" if short else f"{count(value)} steps/s")
        elif name in ("agreement", "retention"):
            parts.append(f"{name[:5] if short else name} {percent(value)}")
        else:
            digits = f"{value:.2g}" if short else f"{value:.3g}"
            parts.append(f"{'KL' if name == 'kl' else name.replace('_', ' ')} {digits}")
    return "  ".join(parts)


class LineTracker(NullTracker):
    """One line when a stage begins or a round has ended, and at times in between while a stage is long."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stage: _Stage | None = None
        self._status: dict[str, float] = {}
        self._round_begin = 0.0
        self._said = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stage(
        self,
        name: str,
        *,
        round: int | None = None,  # noqa: A002
        rounds: int | None = None,
        total: int | None = None,
    ) -> None:
        """Say that a stage without rounds begins, or how the round that ended went."""
        now = self._clock()
        before = self._stage
        if before is None or before.round is None or before.round != round:
            self._end_round()
            self._round_begin = self._said = now
        self._stage = _Stage(name, round, rounds, total, now)
        if round is None:
            self._say(name)

    def advance(self, n: int = 1) -> None:
        """Say how far a long stage is."""
        if self._stage is None:
            return
        self._stage.done += n
        if self._clock() - self._said >= _QUIET_S:
            name = f": {self._stage.name}" if self._stage.round is not None else ""
            percent = f" {100 * self._stage.fraction:.0f} %" if self._stage.total else ""
            self._say("  ".join(part for part in (self._stage.title + name + percent, figures(self._status)) if part))

    def status(self, **values: float) -> None:
        """Keep the figures for the next line."""
        self._status |= values

    def note(self, line: str) -> None:
        """Say it."""
        self._say(printable(line))

    def close(self) -> None:
        """Say how the last round went."""
        self._end_round()
        self._stage = None

    def _end_round(self) -> None:
        stage = self._stage
        if stage is None or stage.round is None:
            return
        every = -(-(stage.rounds or 1) // _MAX_ROUND_LINES)
        if (stage.round + 1) % every == 0 or stage.round + 1 == stage.rounds:
            took = duration(self._clock() - self._round_begin)
            self._say("  ".join(part for part in (stage.title, figures(self._status), took) if part))

    def _say(self, line: str) -> None:
        self._said = self._clock()
        self._stream.write(line + "\n")
        self._stream.flush()


class BarTracker(NullTracker):
    """One bar that runs over all rounds, with the newest figures beside it; stages outside rounds have their own."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._task: TaskID | None = None
        self._stage: _Stage | None = None
        self._status: dict[str, float] = {}
        self._rounds_begin: tuple[float, float] | None = None  # (clock, fraction) when the first round was seen
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stage(
        self,
        name: str,
        *,
        round: int | None = None,  # noqa: A002
        rounds: int | None = None,
        total: int | None = None,
    ) -> None:
        """The bar moves on."""
        before = self._stage
        self._stage = _Stage(name, round, rounds, total, self._clock())
        if before is None or (before.round is None) or (round is None):
            self._status = {}
            self._rounds_begin = None
        if round is not None and self._rounds_begin is None:
            self._rounds_begin = (self._clock(), self._fraction())
        self._show()

    def advance(self, n: int = 1) -> None:
        """The bar grows."""
        if self._stage is not None:
            self._stage.done += n
            if self._clock() - self._shown >= _REDRAW_S:
                self._show()

    def status(self, **values: float) -> None:
        """The figures change."""
        self._status |= values
        self._show()

    def note(self, line: str) -> None:
        """A line above the bar, which stays."""
        from rich.text import Text

        self._progress.console.print(Text(printable(line)))

    def close(self) -> None:
        """The bar goes, and the cursor comes back."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._progress.stop()

    def _fraction(self) -> float:
        """How much is done: of all rounds, or of a stage outside rounds."""
        stage = self._stage
        if stage is None or stage.round is None or not stage.rounds:
            return stage.fraction if stage else 0.0
        place = ROUND_STAGES.index(stage.name) if stage.name in ROUND_STAGES else 0
        return (stage.round + (place + stage.fraction) / len(ROUND_STAGES)) / stage.rounds

    def _left(self, fraction: float) -> str:
        begin, start = self._rounds_begin or (self._stage.begin if self._stage else 0.0, 0.0)
        if fraction - start < 0.01:
            return ""
        seconds = (self._clock() - begin) / (fraction - start) * (1.0 - fraction)
        return (duration(seconds) if seconds >= 10 else f"{seconds:.0f} s") + " left"

    def _show(self) -> None:
        stage = self._stage
        if stage is None:
            return
        self._shown = self._clock()
        fraction = self._fraction()
        known = stage.total is not None or stage.rounds is not None
        title = stage.title if stage.round is None else f"{stage.title} {stage.name}"
        right = "  ".join(
            part for part in (figures(self._status, short=True), self._left(fraction) if known else "") if part
        )
        total = 1.0 if known else None
        if self._task is None:
            self._task = self._progress.add_task(title, total=total, right=right)
        self._progress.update(self._task, description=title, completed=fraction, total=total, right=right)


def console_tracker(stream: IO[str] | None = None) -> LineTracker | BarTracker:
    """The tracker for this process's standard error (or `stream`): a bar when a terminal is there to draw it."""
    from rich.console import Console

    console = Console(file=stream, stderr=stream is None)
    if not console.is_terminal or console.is_dumb_terminal:
        return LineTracker(stream or sys.stderr)
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[right]}", markup=False),
    )
    return BarTracker(Progress(*columns, console=console, transient=True))
