"""`policykd finetune`: options in, `policykd.api` called, the result out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from policykd.cli.commands import (
    AllowImport,
    ConfigName,
    Device,
    EnvId,
    Seed,
    TeacherName,
    Trust,
    VecNormalize,
    alone,
    app,
    print_run,
)


@app.command()
def finetune(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="STUDENT_OR_RUN KEY.SUB=VALUE", help="A student, then settings such as seed=1."),
    ] = None,
    config: ConfigName = None,
    teacher: TeacherName = None,
    vec_normalize: VecNormalize = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Trust = False,
    timesteps: Annotated[int | None, typer.Option(metavar="N", help="Of all environments together.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; by default runs/NAME-N.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue the run in this folder.")] = None,
    device: Device = None,
    seed: Seed = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the configuration, and end.")] = False,
) -> int:
    """Go on with a student by reinforcement learning, pulled to its teacher.

    The student's own run names teacher and environment, unless options do. A critic is fitted before the student
    moves, and the best student on the selection seeds is kept.
    """
    named = {
        "teacher": teacher,
        "vec_normalize": vec_normalize,
        "env": env,
        "allow_import": allow_import or None,
        "trust": trust or None,
        "device": device,
        "seed": seed,
        "timesteps": timesteps,
    }
    from policykd.cli.output import watched

    if resume is not None:
        alone(resume, [config, out, print_config or None, *(words or []), *(named | {"trust": None}).values()])
        with watched() as (tracker, stop):
            from policykd import api

            run = api.resume(resume, trust=trust, tracker=tracker, stop=stop)
        return print_run(run)
    from policykd.finetuning.settings import settings_of

    student, settings = settings_of(config, words or [], named)
    if print_config:
        from policykd.spine.config.load import resolved_yaml

        sys.stdout.write(resolved_yaml(settings))
        return 0
    with watched() as (tracker, stop):
        from policykd import studies

        run = studies.finetune(student, settings, out=out, tracker=tracker, stop=stop)
    return print_run(run)
