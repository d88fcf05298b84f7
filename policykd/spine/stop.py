"""Stopping long work cleanly: a flag that SIGINT and SIGTERM raise and that every loop asks."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from policykd.spine.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], Any] | int | None


class Stop(Protocol):
    """What a loop asks: whether to stop."""

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        ...

    def check(self) -> None:
        """Raises Interrupted when a stop was asked for."""
        ...


class StopFlag:
    """Raised by the first SIGINT or SIGTERM while it is entered; a second signal ends the process at once.

    Outside a `with` block, and in any thread but the main one, it installs nothing and only `request` raises it.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._previous: dict[signal.Signals, _Handler] = {}
        self._entered = 0

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.reason is not None

    def check(self) -> None:
        """Raise `Interrupted` when a stop was asked for."""
        if self.reason is not None:
            raise Interrupted(f"stopped by {self.reason}")

    def request(self, reason: str) -> None:
        """Ask for a stop, as a signal does."""
        self.reason = self.reason or reason

    def __enter__(self) -> Self:
        """Take the signals over; entering it again inside changes nothing."""
        self._entered += 1
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered:
            return
        for number, handler in self._previous.items():
            # None: a handler that C code installed, which Python cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)
        # From here the operating system ends the process, even while Python waits for a long call into C.
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # os.write and not print: the interrupted code may hold the lock of the stream.
        terminal = sys.__stderr__ is not None and sys.__stderr__.isatty()
        line = f"policykd: {self.reason}: stopping at the next safe point; a second signal quits at once\n"
        show_cursor = "\r\x1b[K\x1b[?25h"  # a progress bar hides it, and a second signal could not give it back
        os.write(2, ((show_cursor if terminal else "") + line).encode())


class NeverStop(StopFlag):
    """A flag that is never raised and leaves the signals alone: for use from Python."""

    def request(self, reason: str) -> None:
        """Nothing: this flag is never raised."""

    def __enter__(self) -> Self:
        """Nothing changes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing changes back."""


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While it is entered SIGTERM raises KeyboardInterrupt, as Ctrl-C does; a second one ends the process at once.

    For what has no loop that asks a `StopFlag`: imports, reading a file, a window. In any thread but the main one it
    installs nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
