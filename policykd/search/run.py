"""A whole `policykd shrink`: the grid settled, the search, and every document of its run folder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from policykd.learn.judging.proof import Proved
from policykd.learn.judging.robustness import robustness
from policykd.learn.run import STUDENT, Run, Task, conclude, signed
from policykd.learn.setup.defaults import refuse_shared_seeds
from policykd.learn.setup.session import Session
from policykd.search.choosing import LADDER
from policykd.search.diagnosis import diagnose
from policykd.search.frontier import frontier_document
from policykd.search.grid import grid, size_for, with_grid_settings
from policykd.search.latency import refuse_impossible
from policykd.search.shrink import Shrink
from policykd.spine.artifact import save_artifact
from policykd.spine.config.judging import SearchConfig
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError

KEEP = 0.99
"""Retention that `policykd shrink` asks for where nothing else is said."""


def shrink_config(config: Config) -> Config:
    """The configuration of a search; InputError for what a search has no use for."""
    if config.student.seeds != 1:
        raise InputError(
            f"student.seeds {config.student.seeds}: policykd shrink adds seeds where they decide: set search.seeds"
        )
    if config.student.kind == "tree":
        raise InputError(
            "student.kind tree: policykd shrink searches networks; policykd distill with "
            "'student.leaves=[4, 8, 16, 32]' grows trees of all these sizes at once and keeps the best"
        )
    for name in ("collect", "tune"):
        if getattr(config, name) is not None:
            raise InputError(f"{name}: a setting of policykd {name}, of no use to shrink: leave it out")
    if config.data.dir is not None:
        raise InputError(
            f"data.dir {config.data.dir}: policykd shrink of this version collects its own data; policykd distill "
            "learns from yours, and student.width=[4, 8, 16] trains many sizes at once"
        )
    gate = config.gate if config.gate.keep is not None else config.gate.model_copy(update={"keep": KEEP})
    config = config.model_copy(update={"gate": gate, "search": config.search or SearchConfig()})
    refuse_shared_seeds(config, max(LADDER[-1], config.evaluate.select_episodes))
    try:  # what makes no sense in a search: now it says that it is one
        return Config.model_validate(config.model_dump())
    except ValidationError as error:
        raise InputError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error


def with_grid(task: Task) -> Task:
    """The task with the grid written out, so that its config.yaml repeats it. InputError where limits leave none."""
    student = with_grid_settings(task.config.student, task.config, task.teacher)
    config = task.config.model_copy(update={"student": student})
    teacher = task.teacher
    specs = grid(config, teacher, size_for(teacher, student.keys))
    if config.search is not None and config.search.max_us is not None:
        refuse_impossible(teacher, specs[0], student.activation, config.search.max_us, student.keys)
    return replace(task, config=config)


def shrink(session: Session) -> Run:
    """What a run of `policykd shrink` does once its session is prepared."""
    outcome = Shrink(session).run()
    student = outcome.candidate.student
    save_artifact(session.folder.path / STUDENT, *signed(session, student, {}).to_artifact())
    diagnosis = diagnose(outcome)
    for line in diagnosis.lines:
        session.work.tracker.note(line)
    first, report = session.config.evaluate.select_first_seed, outcome.proof.seeds
    last = first + max(outcome.standing.most_played, len(session.select_seeds)) - 1
    seeds = {"train": session.config.seed, "select": [first, last], "report": [report[0], report[-1]]}
    proved = Proved(student, outcome.proof, outcome.timesteps)
    more = {"diagnosis": diagnosis.to_json(), "seeds": seeds, **robustness(session, proved)}

    def documents(result: dict[str, Any]) -> dict[str, Any]:
        return {"frontier.json": frontier_document(outcome, result)}

    with session.work.stage("frontier"):
        return conclude(session, proved, more, documents)
