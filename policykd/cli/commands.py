"""The commands. Each reads its options, calls `policykd.api` and prints what comes back; none holds logic.

torch, gymnasium, stable_baselines3 and pydantic are imported inside the functions: `policykd --help` needs none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policykd.cli.asking import Asked
from policykd.spine.errors import InputError

if TYPE_CHECKING:
    from policykd.learn.run import Run
    from policykd.spine.config.schema import Config
    from policykd.spine.stop import StopFlag
    from policykd.spine.tracker import Tracker

app = typer.Typer(
    name="policykd",
    help="Distil a trained reinforcement-learning policy into the smallest policy that still does the job.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,  # rich would triple the time of --help
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY.SUB=VALUE", help="Settings that override the file's, such as student.width=16."),
]
ConfigName = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="A YAML file, or a shipped name such as lunarlander.")
]
TeacherName = Annotated[
    str | None,
    typer.Option("--teacher", metavar="T", help="An SB3 zip, RL-Zoo folder, run folder, builtin:NAME or hf:ORG/REPO."),
]
TeacherNames = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        metavar="T",
        help="An SB3 zip, RL-Zoo folder, run folder, builtin:NAME or hf:ORG/REPO; several make an ensemble.",
    ),
]
VecNormalize = Annotated[
    str | None,
    typer.Option("--vec-normalize", metavar="FILE", help="Statistics of a teacher that does not bring its own."),
]
EnvId = Annotated[
    str | None, typer.Option("--env", metavar="ID", help="A registered environment id; by default the teacher's.")
]
AllowImport = Annotated[
    bool, typer.Option("--allow-import", help="Let `package:Id` of --env, and a zoo folder's wrappers, be imported.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Let SB3's own loader open a teacher of a foreign class: runs what it holds.")
]
Stochastic = Annotated[
    bool, typer.Option("--stochastic", help="Judge sampled actions instead of the most likely ones.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="The root of every random number.")]
Device = Annotated[str | None, typer.Option("--device", metavar="D", help="auto, cpu, cuda or cuda:N.")]


def _version(wanted: bool) -> None:
    if wanted:
        from policykd import __version__

        typer.echo(f"policykd {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Distil a trained reinforcement-learning policy into the smallest policy that still does the job."""


@app.command()
def distill(
    overrides: Overrides = None,
    config: ConfigName = None,
    teacher: TeacherNames = None,
    vec_normalize: VecNormalize = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Trust = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; by default runs/NAME-N.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue the run in this folder.")] = None,
    device: Device = None,
    seed: Seed = None,
    keep: Annotated[
        float | None, typer.Option(metavar="F", help="Retention to hold, such as 0.95; not held: exit code 3.")
    ] = None,
    margin: Annotated[float | None, typer.Option(metavar="F", help="Slack of --keep; 0.02 by default.")] = None,
    stochastic: Stochastic = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the configuration, and end.")] = False,
) -> int:
    """Train a small student on a teacher, and prove it.

    Without arguments it distils the built-in CartPole teacher. A setting is overridden with KEY.SUB=VALUE; later
    wins: the file, then overrides, then options.
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
        "deterministic": False if stochastic else None,
    }
    asked = Asked(named, overrides, config, out, resume, print_config)

    def begin(settings: Config, tracker: Tracker, stop: StopFlag) -> Run:
        from policykd import api

        return api.distill(settings, out=out, tracker=tracker, stop=stop)

    return asked.run(asked.settled, begin)


@app.command()
def evaluate(
    source: Annotated[str, typer.Argument(metavar="STUDENT_OR_TEACHER", help="A run folder, a student, or a teacher.")],
    teacher: TeacherName = None,
    vec_normalize: VecNormalize = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Trust = False,
    episodes: Annotated[int, typer.Option(metavar="N", min=2, help="Episodes, each with its own seed.")] = 100,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the first episode.")] = 10_000,
    stochastic: Stochastic = False,
    as_json: AsJson = False,
) -> int:
    """Measure a policy's return.

    With --teacher, also what it retains of the teacher's return on the same seeds.
    """
    from policykd.cli.output import print_returns, watched
    from policykd.spine.config.schema import EnvConfig

    with watched() as (tracker, stop):
        from policykd import api
        from policykd.learn.judging.judge import Judging

        result = api.evaluate(
            source,
            teacher=teacher,
            env=EnvConfig(id=env, allow_import=allow_import),
            how=Judging(episodes, seed, not stochastic, vec_normalize, trust),
            tracker=tracker,
            stop=stop,
        )
    print_returns(result, as_json=as_json)
    return 0


@app.command()
def inspect(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE_OR_FOLDER...", help="Teachers, students, or run folders.")
    ],
    episodes: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Judge it over N episodes, each with its own seed.")
    ] = None,
    vec_normalize: VecNormalize = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Trust = False,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Seed of the first episode; 10000.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show what a file holds; nothing is run.

    With --episodes each is judged before it teaches: return, length, entropy, latency, cost, and whether it is clearly
    better than random. Several are ranked by return on the same seeds.
    """
    if episodes is not None:
        return _rank(sources, (env, allow_import), (episodes, seed, vec_normalize, trust), as_json)
    if env is not None or allow_import or seed is not None:
        raise InputError(
            "inspect: --env, --allow-import and --seed say how to judge: add --episodes N, or leave them out"
        )
    from policykd import api
    from policykd.cli.output import print_documents

    print_documents(
        [api.inspect(source, vec_normalize=vec_normalize, trust=trust) for source in sources], as_json=as_json
    )
    return 0


def _rank(
    sources: list[str], env: tuple[str | None, bool], how: tuple[int, int | None, str | None, bool], as_json: bool
) -> int:
    from policykd.cli.output import print_ranking, watched
    from policykd.spine.config.schema import EnvConfig

    with watched() as (tracker, stop):
        from policykd import api
        from policykd.learn.judging.judge import Judging

        episodes, seed, vec_normalize, trust = how
        first = 10_000 if seed is None else seed
        judging = Judging(episodes, first, vec_normalize=vec_normalize, trust=trust)
        where = EnvConfig(id=env[0], allow_import=env[1])
        ranked = api.rank(sources, env=where, how=judging, tracker=tracker, stop=stop)
    print_ranking(ranked, as_json=as_json)
    return 0


@app.command()
def play(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="A student or a run folder.")],
    teacher: TeacherName = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="Film it instead of opening a window.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the episode.")] = 0,
    trust: Trust = False,
) -> int:
    """Watch or film the student.

    A video shows it side by side with its teacher, on the same seed.
    """
    from policykd import api
    from policykd.cli.output import print_document
    from policykd.spine.config.schema import EnvConfig

    where = EnvConfig(id=env, allow_import=allow_import)
    shown = api.play(student, teacher=teacher, env=where, video=video, seed=seed, trust=trust)
    print_document(shown)
    return 0


@app.command()
def train(
    config: Annotated[
        str, typer.Option("--config", metavar="FILE", help="A YAML file, or a shipped name such as teachers/cartpole.")
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="By default runs/teachers/NAME-N.")] = None,
    seed: Seed = None,
    device: Device = None,
) -> int:
    """Train a teacher with stable-baselines3.

    sb3-contrib's trpo, qrdqn, tqc, ars, maskable_ppo and recurrent_ppo are there as well.
    """
    from policykd.cli.output import print_document, watched
    from policykd.spine.config.load import load_train_config

    settings = load_train_config(config, overrides or [], {"seed": seed, "device": device})
    with watched() as (tracker, stop):
        from policykd import api

        record = api.train_teacher(settings, out=out, tracker=tracker, stop=stop)
    print_document(record)
    return 0
