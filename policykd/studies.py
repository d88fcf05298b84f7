"""The Python interface of what is done around distillations; `policykd` offers these functions beside those of api."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from policykd.beginning import check_arguments, free_folder, reported
from policykd.learn.collecting import Collected, collection, open_collection
from policykd.learn.run import Run, run_task
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.stop import NeverStop, StopFlag
from policykd.spine.tracker import NullTracker, Tracker
from policykd.tuning.run import open_tuning
from policykd.tuning.run import tune as search


def collect(
    config: Config | None = None,
    *,
    teacher: Any = None,
    env: Callable[..., Any] | None = None,
    out: Path | str,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> Collected:
    """Writes labelled data into the folder `out`: one shard a round, which `config.data.dir` of a distillation reads.

    `config.collect` says who acts beside the teacher, and whether a Minari data set is written too; arguments and
    errors as in `distill`.
    """
    check_arguments(config, env)
    task = open_collection(config or Config(), teacher, env)
    folder = RunFolder(free_folder(out, Path("runs"), ""))
    return run_task(folder, task, tracker or NullTracker(), stop or NeverStop(), collection)


def resume_collection(
    folder: Path | str,
    *,
    teacher: Any = None,
    env: Callable[..., Any] | None = None,
    trust: bool = False,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> Collected:
    """Goes on with the collection in `folder`: shards that are there stay as they are. `trust` as in `resume`."""
    path = Path(folder)
    run_folder = RunFolder(path, resume=True)
    config = load_config(str(path / "config.yaml"), vouched=trust)
    if config.collect is None:
        raise InputError(f"{path}: no collection; continue it with policykd distill --resume {path}")
    task = open_collection(config, teacher, env)
    return run_task(run_folder, task, tracker or NullTracker(), stop or NeverStop(), collection)


def tune(
    config: Config | None = None,
    *,
    teacher: Any = None,
    env: Callable[..., Any] | None = None,
    out: Path | str | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> Run:
    """Distils again and again with other settings (`config.tune`), and proves the best student on fresh seeds.

    Trials are judged on the selection seeds alone; best.yaml in the run's folder is the configuration of the best one.
    Arguments and errors as in `distill`; `policykd.resume` goes on with it.
    """
    check_arguments(config, env)
    task = open_tuning(config or Config(), teacher, env)
    path = free_folder(out, Path("runs"), f"tune-{task.name}")
    watch = tracker or NullTracker()
    return reported(run_task(RunFolder(path, fresh=out is None), task, watch, stop or NeverStop(), search), watch)
