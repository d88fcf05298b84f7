"""`policykd finetune`: options in, `policykd.api` called, the result out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policykd.cli.asking import Asked
from policykd.cli.commands import (
    AllowImport,
    ConfigName,
    Device,
    EnvId,
    Seed,
    TeacherName,
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
    }
    own = [] if timesteps is None else [f"finetune.timesteps={timesteps}"]  # elsewhere it means those of the rollouts
    asked = Asked(named, [*(words or []), *own], config, out, resume, print_config)
    student, settings_words = student_among([*(words or []), *own])

    def settled() -> Config:
        from policykd.finetuning.settings import with_finetune

        return with_finetune(replace(asked, words=settings_words).settled())

    def begin(settings: Config, tracker: Tracker, stop: StopFlag) -> Run:
        from policykd import studies

        return studies.finetune(student, settings, out=out, tracker=tracker, stop=stop)

    return asked.run(settled, begin)


def student_among(words: list[str]) -> tuple[str | None, list[str]]:
    """The student, where the first word is one (a path, or no `key.sub=value`), and the other words."""
    named = bool(words) and ("=" not in words[0] or _exists(words[0]))
    return (words[0], words[1:]) if named else (None, words)


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # a setting may be longer than a file's name can be
        return False
