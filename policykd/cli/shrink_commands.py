"""`policykd shrink`: options in, `policykd.api` called, the result out."""

from __future__ import annotations

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
    TeacherNames,
    Trust,
    VecNormalize,
    app,
)

if TYPE_CHECKING:
    from policykd.learn.run import Run
    from policykd.spine.config.schema import Config
    from policykd.spine.stop import StopFlag
    from policykd.spine.tracker import Tracker


@app.command()
def shrink(
    overrides: Overrides = None,
    config: ConfigName = None,
    teacher: TeacherNames = None,
    vec_normalize: VecNormalize = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Trust = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; by default runs/NAME-N.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue the search in this folder.")] = None,
    device: Device = None,
    seed: Seed = None,
    keep: Annotated[float | None, typer.Option(metavar="F", help="Retention to hold; 0.99 by default.")] = None,
    margin: Annotated[float | None, typer.Option(metavar="F", help="Slack of --keep; 0.02 by default.")] = None,
    max_params: Annotated[int | None, typer.Option(metavar="N", help="Weights and biases at most.")] = None,
    max_bytes: Annotated[int | None, typer.Option(metavar="N", help="Bytes of constants in C at most.")] = None,
    max_us: Annotated[float | None, typer.Option(metavar="F", help="Microseconds of an action in C at most.")] = None,
    stochastic: Stochastic = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the configuration, and end.")] = False,
) -> int:
    """Find the smallest student that still does the job, and prove it.

    It trains families of many sizes on shared data, closes in on the smallest that holds --keep of the teacher's
    return, and confirms it on fresh seeds. Exit code 3 where none passes; the best is kept and shown.
    """
    named = {
        "teacher": teacher or None,
        "vec_normalize": vec_normalize,
        "env": env,
        "allow_import": allow_import or None,
        "trust": trust or None,
        "device": device,
        "seed": seed,
        "keep": keep,
        "margin": margin,
        "max_params": max_params,
        "max_bytes": max_bytes,
        "max_us": max_us,
        "deterministic": False if stochastic else None,
    }
    asked = Asked(named, overrides, config, out, resume, print_config)

    def settled() -> Config:
        from policykd.search.run import KEEP, shrink_config

        return shrink_config(asked.settled(keep=KEEP))

    def begin(settings: Config, tracker: Tracker, stop: StopFlag) -> Run:
        from policykd import api

        return api.shrink(settings, out=out, tracker=tracker, stop=stop)

    return asked.run(settled, begin)
