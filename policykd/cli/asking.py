"""What every command that makes something has in common: it goes on with a folder, or settles, prints, or begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policykd.spine.errors import InputError

if TYPE_CHECKING:
    from policykd.learn.run import Run
    from policykd.spine.config.schema import Config
    from policykd.spine.stop import StopFlag
    from policykd.spine.tracker import Tracker

GATE_FAILED = 3


@dataclass(frozen=True)
class Asked:
    """Options that are settings (`named`, None where they were not given), and those that say what to do."""

    named: dict[str, Any]
    words: list[str] | None
    config: str | None
    out: Path | None
    resume: Path | None
    print_config: bool

    def settled(self, **more: Any) -> Config:
        """The configuration: the file, then words, then options. `more` goes to `load_config`."""
        from policykd.spine.config.load import load_config

        return load_config(self.config, self.words or [], self.named, **more)

    def done(
        self, settled: Callable[[], Config], begin: Callable[[Config], int], go_on: Callable[[Path, bool], int]
    ) -> int:
        """The exit code of going on (`go_on(folder, trust)`), of printing, or of beginning.

        InputError for anything but --trust beside --resume.
        """
        if self.resume is not None:
            self._alone(self.resume)
            return go_on(self.resume, bool(self.named.get("trust")))
        settings = settled()
        if not self.print_config:
            return begin(settings)
        from policykd.spine.config.load import resolved_yaml

        sys.stdout.write(resolved_yaml(settings))
        return 0

    def run(self, settled: Callable[[], Config], begin: Callable[[Config, Tracker, StopFlag], Run]) -> int:
        """`done` with a run: its progress, its result, where everything lies, and the exit code its gate asks for."""

        def begun(settings: Config) -> int:
            return _watched(lambda tracker, stop: begin(settings, tracker, stop))

        return self.done(settled, begun, _gone_on)

    def _alone(self, resume: Path) -> None:
        others = [value for option, value in self.named.items() if option != "trust"]
        others += [self.config, self.out, self.print_config or None, *(self.words or [])]
        if any(other is not None for other in others):
            raise InputError(
                f"--resume {resume} continues a run with its own configuration: leave the other options and settings "
                "out (--trust apart, where the run was made with it or with --allow-import)"
            )


def _gone_on(folder: Path, trust: bool) -> int:
    def resume(tracker: Tracker, stop: StopFlag) -> Run:
        from policykd import api

        return api.resume(folder, trust=trust, tracker=tracker, stop=stop)

    return _watched(resume)


def _watched(work: Callable[[Tracker, StopFlag], Run]) -> int:
    from policykd.cli.output import print_returns, watched
    from policykd.report.table import aligned

    with watched() as (tracker, stop):
        run = work(tracker, stop)
    print_returns(run.result)
    where = [("run folder", str(run.folder)), ("watch it", f"policykd play {run.folder}")]
    if (page := run.folder / "report.html").is_file():
        where.insert(1, ("report", str(page)))
    if (best := run.folder / "best.yaml").is_file():
        where.insert(1, ("best settings", f"policykd distill --config {best}"))
    sys.stdout.write(f"\n{aligned(where)}\n")
    return GATE_FAILED if run.passed is False else 0
