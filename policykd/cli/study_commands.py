"""`policykd collect` and `policykd tune`: options in, `policykd.studies` called, what came of it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policykd.cli.asking import Asked
from policykd.cli.commands import (
    AllowImport,
    ConfigName,
    Device,
    EnvId,
    Overrides,
    Seed,
    Stochastic,
    TeacherName,
    Trust,
    VecNormalize,
    app,
)
from policykd.spine.errors import InputError

if TYPE_CHECKING:
    from policykd.learn.collecting import Collected
    from policykd.learn.run import Run
    from policykd.spine.config.schema import Config
    from policykd.spine.stop import StopFlag
    from policykd.spine.tracker import Tracker


@app.command()
def collect(
    overrides: Overrides = None,
    config: ConfigName = None,
    teacher: TeacherName = None,
    vec_normalize: VecNormalize = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Trust = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the data goes: a new or empty folder.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue the collection in this folder.")] = None,
    timesteps: Annotated[int | None, typer.Option(metavar="N", help="As rollout.timesteps.")] = None,
    student: Annotated[
        str | None, typer.Option(metavar="FILE", help="A student that acts beside the teacher (rollout.beta).")
    ] = None,
    minari: Annotated[
        str | None, typer.Option(metavar="ID", help="Write a Minari data set too, such as cartpole/teacher-v0.")
    ] = None,
    device: Device = None,
    seed: Seed = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the configuration, and end.")] = False,
) -> int:
    """Write labelled data, to learn from without an environment.

    `policykd distill data=DIR` learns from it. rollout.* says how much and who acts; a round is a shard.
    """
    named = {
        "teacher": teacher,
        "vec_normalize": vec_normalize,
        "env": env,
        "allow_import": allow_import or None,
        "trust": trust or None,
        "timesteps": timesteps,
        "student": student,
        "minari": minari,
        "device": device,
        "seed": seed,
    }
    asked = Asked(named, overrides, config, out, resume, print_config)
    return asked.done(asked.settled, lambda settings: _collected(settings, out), _collected_on)


def _collected(settings: Config, folder: Path | None) -> int:
    if folder is None:
        raise InputError("collect: where the data goes is missing: add --out DIR")

    def collect(tracker: Tracker, stop: StopFlag) -> Collected:
        from policykd import studies

        return studies.collect(settings, out=folder, tracker=tracker, stop=stop)

    return _written(collect)


def _collected_on(folder: Path, trust: bool) -> int:
    def resume(tracker: Tracker, stop: StopFlag) -> Collected:
        from policykd import studies

        return studies.resume_collection(folder, trust=trust, tracker=tracker, stop=stop)

    return _written(resume)


def _written(work: Callable[[Tracker, StopFlag], Collected]) -> int:
    from policykd.cli.output import print_document, watched

    with watched() as (tracker, stop):
        data = work(tracker, stop)
    print_document(data.summary())
    return 0


@app.command()
def tune(
    overrides: Overrides = None,
    config: ConfigName = None,
    teacher: TeacherName = None,
    vec_normalize: VecNormalize = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Trust = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; by default runs/NAME-N.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue the search in this folder.")] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="Distillations; 20 by default.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds after which no trial goes on.")] = None,
    device: Device = None,
    seed: Seed = None,
    keep: Annotated[float | None, typer.Option(metavar="F", help="Retention to hold; not held: exit code 3.")] = None,
    margin: Annotated[float | None, typer.Option(metavar="F", help="Slack of --keep; 0.02 by default.")] = None,
    stochastic: Stochastic = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the configuration, and end.")] = False,
) -> int:
    """Search for better settings, and prove the best student.

    Each trial is a distillation with other settings (tune.space), judged on the selection seeds. best.yaml is the
    configuration of the best; its student is proved on the report seeds, which chose nothing.
    """
    named = {
        "teacher": teacher,
        "vec_normalize": vec_normalize,
        "env": env,
        "allow_import": allow_import or None,
        "trust": trust or None,
        "trials": trials,
        "timeout": timeout,
        "device": device,
        "seed": seed,
        "keep": keep,
        "margin": margin,
        "deterministic": False if stochastic else None,
    }
    asked = Asked(named, overrides, config, out, resume, print_config)

    def begin(settings: Config, tracker: Tracker, stop: StopFlag) -> Run:
        from policykd import studies

        return studies.tune(settings, out=out, tracker=tracker, stop=stop)

    return asked.run(asked.settled, begin)
