"""What tests of whole runs need: a tracker that remembers, a stop at a given moment."""

from __future__ import annotations

from pathlib import Path

from policykd.spine.stop import StopFlag
from policykd.spine.tracker import NullTracker


class Notes(NullTracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


class StopsBehind(StopFlag):
    """Is raised as soon as a file exists."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def check(self) -> None:
        if self.path.is_file():
            self.request("test")
        super().check()
