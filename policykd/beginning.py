"""What every function that makes a run does first and last: its arguments, its folder, its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policykd.learn.run import Run
from policykd.report.page import write_report
from policykd.spine.checkpoint import is_free, next_run_folder
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError, brief
from policykd.spine.tracker import Tracker


def check_arguments(config: Any, env: Any) -> None:
    """InputError for what is no Config, and no function."""
    if not isinstance(config, Config | None):
        raise InputError(f"config is a {type(config).__name__}, expected a Config: make one with policykd.load_config")
    if env is not None and not callable(env):
        raise InputError(f"env is a {type(env).__name__}, expected a function: name an id as env.id of the Config")


def reported(run: Run, tracker: Tracker) -> Run:
    """The run, with its report; what cannot be drawn does not lose it."""
    try:
        write_report(run.folder)
    except Exception as error:
        why = brief(f"{type(error).__name__}: {error}")
        tracker.note(f"the run is whole, but report.html is not ({why}); policykd report {run.folder} tries again")
    return run


def free_folder(out: Path | str | None, root: Path, name: str) -> Path:
    """The folder that the user names, which must be free, or the next free one below `root`."""
    if out is None:
        return next_run_folder(root, name)
    path = Path(out)
    if not is_free(path):
        kind = "is not empty" if path.is_dir() else "is a file"
        raise InputError(f"{path}: exists and {kind}; choose another --out, or continue a run with --resume {path}")
    return path
