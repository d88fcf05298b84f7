"""One trial: an ordinary distillation in a folder of its own, judged on the selection seeds, given up where it lags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policykd.learn.finish import finished
from policykd.learn.methods.distill import distill
from policykd.learn.rounds.states import Fresh, LearningState
from policykd.learn.run import STUDENT, Task, run_task, signed
from policykd.learn.setup.session import Session
from policykd.spine.artifact import save_artifact
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import resolved_yaml
from policykd.spine.config.schema import Config
from policykd.spine.files import make_folder, write_atomic, write_json
from policykd.spine.tracker import NullTracker


class GivenUp(Exception):
    """The trial is not worth going on with."""


class OutOfTime(Exception):
    """The time of the whole search is over."""


@dataclass(frozen=True)
class Ended:
    """A trial that came to its end: what its best member retains on the selection seeds, and what it cost."""

    retention: float
    facts: dict[str, Any]


Watch = Callable[[int, float | None], None]
"""Told after each round: its index, and the best member's agreement with the teacher (None where nobody acted). It may
raise GivenUp or OutOfTime."""


def run_trial(session: Session, config: Config, path: Path, watch: Watch) -> Ended:
    """Distils with `config` in `path`, from the last checkpoint there. Raises NumericsError, Interrupted, and what
    `watch` raises."""
    _prepare(session, config, path)

    def body(inner: Session) -> Ended:
        agreed: list[float] = []

        def after(state: LearningState, index: int, fresh: Fresh) -> None:
            known = [value for value in fresh.agreement if not np.isnan(value)]
            agreed[:] = [max(known)] if known else []
            watch(index, max(known) if known else None)

        distilled = distill(inner, after)
        student = finished(inner, distilled.student)
        save_artifact(inner.folder.path / STUDENT, *signed(inner, student, {}).to_artifact())
        best = max(means[distilled.member] for means in distilled.selection.returns.values())
        held = retained(inner, best)
        inner.work.tracker.hparams(config.model_dump(mode="json"), {"select/retention": held})
        facts = {"timesteps": distilled.timesteps, "seconds": inner.work.seconds}
        return Ended(held, {**facts, "agreement": agreed[0] if agreed else None})

    return run_task(
        RunFolder(path, resume=True),
        Task(config, session.teacher, session.spec),
        NullTracker(),
        session.work.stop,
        body,
    )


def retained(session: Session, value: float) -> float:
    """Of the teacher's return above the random policy's, on the selection seeds."""
    teacher, random = (float(np.mean(session.baseline[f"{who}_returns"])) for who in ("teacher", "random"))
    return (value - random) / (teacher - random)


def _prepare(session: Session, config: Config, path: Path) -> None:
    """Makes the trial's folder as a run that has its baseline already; the configuration is written last."""
    if (path / "config.yaml").is_file():
        return
    make_folder(path / "checkpoints")
    write_json(path / "checkpoints" / "baseline.json", {**session.baseline, "seconds": {}})
    write_atomic(path / "config.yaml", resolved_yaml(config).encode())
