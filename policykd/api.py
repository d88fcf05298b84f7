"""The Python interface; the command line calls these functions and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from policykd.beginning import check_arguments, free_folder, reported
from policykd.learn.run import Run, distillation, finished_run, open_task, run_task
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config, EnvConfig, TrainConfig
from policykd.spine.errors import InputError
from policykd.spine.stop import NeverStop, StopFlag
from policykd.spine.tracker import NullTracker, Tracker
from policykd.teachers.load import load_teacher

if TYPE_CHECKING:
    from policykd.exports.bundle import Wishes
    from policykd.learn.judging.judge import Judging
    from policykd.learn.setup.session import Session
    from policykd.students.student import Student

Environment: TypeAlias = EnvConfig | str | Callable[..., Any] | None
"""A registered id, a configuration, or a function that returns a gymnasium.Env."""

__all__ = [
    "Run",
    "distill",
    "evaluate",
    "export",
    "inspect",
    "load_teacher",
    "play",
    "rank",
    "report",
    "resume",
    "shrink",
    "train_teacher",
    "verify",
]


def distill(
    config: Config | None = None,
    *,
    teacher: Any = None,
    env: Callable[..., Any] | None = None,
    out: Path | str | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> Run:
    """Trains a compact student and proves it against its teacher; everything is kept in the run's folder.

    `teacher`: a Teacher (of `make_custom_teacher`, for one) or a live stable-baselines3 model instead of
    `config.teacher`. `env`: a function that returns a gymnasium.Env instead of `config.env`. `out`: an empty or new
    folder, by default the next free runs/NAME-N.
    Raises InputError, NumericsError, Interrupted.
    """
    check_arguments(config, env)
    for name, command in (("search", "shrink"), ("collect", "collect"), ("tune", "tune"), ("finetune", "finetune")):
        if getattr(config, name, None) is not None:
            raise InputError(f"{name}: a setting of policykd {command}, of no use to distill: leave it out")
    task = open_task(config or Config(), teacher, env)
    path = free_folder(out, Path("runs"), task.name)
    watch = tracker or NullTracker()
    folder, body = RunFolder(path, fresh=out is None), _body(task.config)
    return reported(run_task(folder, task, watch, stop or NeverStop(), body), watch)


def shrink(
    config: Config | None = None,
    *,
    teacher: Any = None,
    env: Callable[..., Any] | None = None,
    out: Path | str | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> Run:
    """Finds the smallest student that still does the job: `distill`, over a grid of sizes, with a gate on fresh seeds.

    `config.gate.keep` is 0.99 by default; `config.search` says how to look, and what the student may cost. Arguments
    and errors as in `distill`. The run's `passed` is False where no student passed: it then holds the best.
    """
    from policykd.search.run import shrink as search
    from policykd.search.run import shrink_config, with_grid

    check_arguments(config, env)
    task = with_grid(open_task(shrink_config(config or Config()), teacher, env))
    path = free_folder(out, Path("runs"), f"shrink-{task.name}")
    watch = tracker or NullTracker()
    return reported(run_task(RunFolder(path, fresh=out is None), task, watch, stop or NeverStop(), search), watch)


def resume(
    folder: Path | str,
    *,
    teacher: Any = None,
    env: Callable[..., Any] | None = None,
    trust: bool = False,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> Run:
    """Continues the run in `folder` with its own configuration, to the same student, bit for bit.

    A live teacher or an environment function must be given again; the teacher's weights are compared. Where the run's
    config.yaml allows what could run code (`trust`, `env.allow_import`), `trust` must say so too (InputError else).
    """
    path = Path(folder)
    run_folder = RunFolder(path, resume=True)
    finished, watch = finished_run(run_folder), tracker or NullTracker()
    if finished is not None:
        watch.note(f"{path}: this run is finished; here is its result")
        return finished if (path / "report.html").is_file() else reported(finished, watch)
    config = load_config(str(path / "config.yaml"), vouched=trust)
    if config.collect is not None:
        raise InputError(f"{path}: a collection of data; continue it with policykd collect --resume {path}")
    task = open_task(config, teacher, env)
    return reported(run_task(run_folder, task, watch, stop or NeverStop(), _body(config)), watch)


def evaluate(
    source: str | Path,
    *,
    teacher: str | None = None,
    env: Environment = None,
    how: Judging | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> dict[str, Any]:
    """Returns of a student or teacher on the seeds of `how`; with a teacher, retention and agreement as well.

    `env`: a registered id, an EnvConfig, or a function that returns a gymnasium.Env; by default the policy's own.
    Raises InputError, NumericsError, Interrupted.
    """
    from policykd.learn.judging.judge import Judging, judge
    from policykd.learn.setup.session import Work

    work = Work(tracker or NullTracker(), stop or NeverStop())
    return judge(str(source), teacher, _environment(env), how or Judging(), work)


def inspect(source: str | Path, *, vec_normalize: str | None = None, trust: bool = False) -> dict[str, Any]:
    """What a teacher or student file says of itself; nothing in it is run, unless `trust` allows it."""
    from policykd.learn.judging.judge import describe

    return describe(str(source), vec_normalize, trust=trust)


def rank(
    sources: Sequence[str | Path] | str | Path,
    *,
    env: Environment = None,
    how: Judging | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> list[dict[str, Any]]:
    """Teachers (or students) judged on the same seeds, best return first: what `inspect` says of each, and `judged`.

    `judged` holds return, length, entropy, latency, cost, the random policy's return, whether it is clearly above
    random, and `over_next`: the difference to the next in rank, paired by seed. `env` as in `evaluate`. Raises
    InputError, Interrupted.
    """
    from policykd.learn.judging.judge import Judging
    from policykd.learn.judging.ranking import rank as judged
    from policykd.learn.setup.session import Work

    listed = [sources] if isinstance(sources, str | Path) else sources
    if not listed:
        raise InputError("rank: no source was given, expected one or more teachers")
    work = Work(tracker or NullTracker(), stop or NeverStop())
    return judged([str(source) for source in listed], _environment(env), how or Judging(), work)


def train_teacher(
    config: TrainConfig, *, out: Path | str | None = None, tracker: Tracker | None = None, stop: StopFlag | None = None
) -> dict[str, Any]:
    """Trains a teacher with stable-baselines3 or sb3-contrib; its folder can be given to `distill` as teacher."""
    from policykd.learn.train.teacher import train_teacher as train

    path = free_folder(out, Path("runs/teachers"), (config.env.id or config.algo).replace("/", "-").replace(":", "-"))
    watch, flag = tracker or NullTracker(), stop or NeverStop()
    done = 0

    def progress(steps: int, total: int, figures: dict[str, float]) -> None:
        nonlocal done
        if not done:
            watch.stage("train", total=total)
        watch.advance(steps - done)
        done = steps
        watch.status(**figures)

    record = train(config, path, progress=progress, stop=flag)
    return {**record, "folder": str(path)}


def play(
    student: str | Path,
    *,
    teacher: str | None = None,
    env: EnvConfig | str | None = None,
    video: Path | None = None,
    seed: int = 0,
    trust: bool = False,
) -> dict[str, Any]:
    """Shows the student in a window, or films it side by side with its teacher on the same seed."""
    from policykd.report.play import play as show

    where = _environment(env)
    if not isinstance(where, EnvConfig):
        raise InputError(
            "play: env is a function, expected a registered id or an EnvConfig: register it with gymnasium"
        )
    return show(str(student), teacher, where, video, seed, trust=trust)


def export(
    student: Student | str | Path,
    to: str | Sequence[str],
    out: str | Path | None = None,
    *,
    how: Wishes | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> list[dict[str, Any]]:
    """Writes a student for one target or several (onnx, c, torch, sb3, json), each with its proof, and verifies them.

    `student` is a student, its file or a run folder. One target is written into `out` itself, several into folders
    `out`/TARGET; without `out`, into exports/TARGET beside the student. Raises InputError, with nothing left behind.
    """
    from policykd.exports.bundle import Wishes
    from policykd.exports.command import export as write
    from policykd.learn.setup.session import Work

    work = Work(tracker or NullTracker(), stop or NeverStop())
    folder = None if out is None else Path(out)
    wishes = how or Wishes()
    return write(student, to, folder, _environment(wishes.env), wishes, work)


def verify(
    folder: str | Path,
    *,
    episodes: int = 20,
    trust: bool = False,
    env: Environment = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> dict[str, Any]:
    """Replays an export's test vectors on its real runtime, then plays whole episodes with it; InputError where it is
    not the student. `trust`: its files may run code."""
    from policykd.exports.command import verify as check
    from policykd.learn.setup.session import Work

    work = Work(tracker or NullTracker(), stop or NeverStop())
    return check(Path(folder), episodes, _environment(env), work, trust=trust)


def report(folder: Path | str) -> Path:
    """Writes report.html and the pictures of a finished run; returns the page's path. InputError where none is."""
    from policykd.report.page import write_report

    return write_report(Path(folder))


def _body(config: Config) -> Callable[[Session], Run]:
    """What the run does."""
    if config.tune is not None:
        from policykd.tuning.run import tune

        return tune
    if config.finetune is not None:
        from policykd.finetuning.run import finetune

        return finetune
    if config.search is not None:
        from policykd.search.run import shrink as search

        return search
    if config.tasks:
        from policykd.learn.multitask import multitask

        return multitask
    if config.progressive.on:
        from policykd.learn.progressive import progressive

        return progressive
    return distillation


def _environment(env: Environment) -> EnvConfig | EnvSpec:
    if isinstance(env, EnvConfig):
        return env
    if env is None or isinstance(env, str):
        return EnvConfig(id=env)
    if not callable(env):
        raise InputError(f"env is a {type(env).__name__}, expected a registered id, an EnvConfig, or a function")
    return factory_spec(env)
