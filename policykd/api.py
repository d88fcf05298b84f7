"""The Python interface; the command line calls these functions and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policykd.rollout.envs import EnvSpec, env_spec, factory_spec
from policykd.spine.checkpoint import RunFolder, is_free, next_run_folder
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config, EnvConfig, TrainConfig
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.stop import NeverStop, StopFlag
from policykd.spine.tracker import Fanout, NullTracker, TensorBoardTracker, Tracker
from policykd.students.mlp import MlpStudent
from policykd.teachers.load import load_teacher

if TYPE_CHECKING:
    from policykd.learn.judge import Judging
    from policykd.learn.methods.distill import Distilled
    from policykd.learn.session import Session
    from policykd.teachers.base import Teacher

__all__ = ["Run", "distill", "evaluate", "inspect", "load_teacher", "play", "resume", "train_teacher"]


@dataclass(frozen=True)
class Run:
    """A finished run: `result` is the document of result.json, `passed` the gate's verdict (None without a gate)."""

    folder: Path
    result: dict[str, Any]
    student: MlpStudent

    @property
    def passed(self) -> bool | None:
        """Whether the student held what `gate.keep` asked for; None when nothing was asked."""
        gate = self.result.get("gate")
        return None if gate is None else bool(gate["passed"])

    def __str__(self) -> str:
        held, size = self.result["retention"], self.result["student"]["params"]
        low, high = held["ci95"]
        return (
            f"{self.folder}: retention {held['value']:.3f} ({low:.3f} to {high:.3f}) with {size} parameters, "
            f"{self.result['compression']:.1f} x fewer than the teacher"
        )


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

    `teacher`: a Teacher or a live stable-baselines3 model instead of `config.teacher`. `env`: a function that returns
    a gymnasium.Env instead of `config.env`. `out`: an empty or new folder, by default the next free runs/NAME-N.
    Raises InputError, NumericsError, Interrupted.
    """
    config = config or Config()
    # Everything that can be wrong with the input is found before a folder is made.
    task = _task(config, teacher, env)
    path = _free_folder(out, Path("runs"), _run_name(task.teacher))
    return _in_folder(RunFolder(path), task, tracker, stop)


def resume(
    folder: Path | str,
    *,
    teacher: Any = None,
    env: Callable[..., Any] | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> Run:
    """Continues the run in `folder` with its own configuration, to the same student, bit for bit.

    A live teacher or an environment function must be given again; the teacher's weights are compared.
    """
    path = Path(folder)
    run_folder = RunFolder(path, resume=True)
    config = load_config(str(path / "config.yaml"), [], {})
    return _in_folder(run_folder, _task(config, teacher, env), tracker, stop)


def evaluate(
    source: str,
    *,
    teacher: str | None = None,
    env: EnvConfig | str | None = None,
    how: Judging | None = None,
    tracker: Tracker | None = None,
    stop: StopFlag | None = None,
) -> dict[str, Any]:
    """Returns of a student or teacher on the seeds of `how`; with a teacher, retention and agreement as well."""
    from policykd.learn.judge import Judging, judge
    from policykd.learn.session import Work

    work = Work(tracker or NullTracker(), stop or NeverStop())
    return judge(source, teacher, _env_config(env), how or Judging(), work)


def inspect(source: str) -> dict[str, Any]:
    """What a teacher or student file says of itself; nothing in it is run."""
    from policykd.learn.judge import describe

    return describe(source)


def train_teacher(
    config: TrainConfig, *, out: Path | str | None = None, tracker: Tracker | None = None, stop: StopFlag | None = None
) -> dict[str, Any]:
    """Trains a teacher with stable-baselines3 or sb3-contrib; its folder can be given to `distill` as teacher."""
    from policykd.learn.train_teacher import train_teacher as train

    path = _free_folder(out, Path("runs/teachers"), (config.env.id or config.algo).replace("/", "-").replace(":", "-"))
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
    student: str,
    *,
    teacher: str | None = None,
    env: EnvConfig | str | None = None,
    video: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Shows the student in a window, or films it side by side with its teacher on the same seed."""
    from policykd.report.play import play as show

    return show(student, teacher, _env_config(env), video, seed)


@dataclass(frozen=True)
class _Task:
    """What a run is about, opened and checked."""

    config: Config
    teacher: Teacher
    spec: EnvSpec


def _task(config: Config, teacher: Any, env: Callable[..., Any] | None) -> _Task:
    loaded = load_teacher(teacher if teacher is not None else config.teacher, env_id=config.env.id)
    if env is not None:
        return _Task(config, loaded, factory_spec(env))
    return _Task(config, loaded, env_spec(config.env, loaded.info.env_id, loaded.info.env_kwargs))


def _in_folder(folder: RunFolder, task: _Task, tracker: Tracker | None, stop: StopFlag | None) -> Run:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(task.config.threads)
    try:
        with folder:
            finished = _finished(folder)
            if finished is not None:
                (tracker or NullTracker()).note(f"{folder.path}: this run is finished; here is its result")
                return finished
            board = TensorBoardTracker(folder.path, purge_step=_first_new_points(folder))
            watch = Fanout([tracker, board]) if tracker is not None else board
            try:
                return _run(folder, task, watch, stop or NeverStop())
            except Interrupted as error:
                raise Interrupted(f"{error}; continue with --resume {folder.path}") from None
            finally:
                board.close()
    finally:
        torch.set_num_threads(threads)


def _first_new_points(folder: RunFolder) -> dict[str, int] | None:
    """Where the curves of a resumed run go on: over optimizer steps, and over timesteps."""
    latest = folder.load_facts("latest")
    if latest is None:
        return None
    return {"update/": latest["updates"], "loss/": latest["updates"], "": latest["timesteps"] + 1}


def _run(folder: RunFolder, task: _Task, watch: Tracker, stop: StopFlag) -> Run:
    from policykd.learn.defaults import resolve_device
    from policykd.learn.methods.distill import distill as train
    from policykd.learn.session import Work, prepare

    for line in task.teacher.info.notes:
        watch.note(line)
    teacher = task.teacher.to(resolve_device(task.config.device))
    session = prepare(task.config, teacher, task.spec, folder, Work(watch, stop))
    return _conclude(session, train(session))


def _conclude(session: Session, distilled: Distilled) -> Run:
    from dataclasses import replace

    from policykd.learn.proof import build_result, frontier, prove
    from policykd.spine.artifact import save_artifact
    from policykd.spine.files import write_json
    from policykd.students.family import members_of

    facts = prove(session, distilled.student)
    folder = session.folder
    draft = build_result(session, distilled, facts, 0)
    student = replace(distilled.student, provenance=_provenance(session, draft)).to("cpu")
    size = save_artifact(folder.path / "student.safetensors", *student.to_artifact())
    result = build_result(session, distilled, facts, size)
    specs = tuple(members_of(session.config.student))
    if len(specs) > 1:
        write_json(folder.path / "frontier.json", frontier(session, distilled, result, specs))
    session.work.tracker.hparams(session.config.model_dump(mode="json"), _figures(result))
    write_json(folder.path / "result.json", result)
    folder.drop_shards()
    return Run(folder.path, result, student)


def _provenance(session: Session, result: dict[str, Any]) -> dict[str, Any]:
    """What a student file says of its origin: no times, no paths, so that equal runs give equal bytes."""
    config = session.config.model_dump(mode="json")
    config["teacher"] = session.teacher.info.algo
    figures = ("env", "return", "retention", "agreement", "worst_decile", "episodes", "seeds", "timesteps")
    figures_doc = {name: result[name] for name in figures if name in result}
    figures_doc["student_return"], figures_doc["teacher_return"] = (
        result["student"]["return"],
        result["teacher"]["return"],
    )
    teacher = {name: result["teacher"][name] for name in ("sha256", "algo", "params")}
    return {"policykd": result["policykd"], "teacher": teacher, "config": config, "figures": figures_doc}


def _figures(result: dict[str, Any]) -> dict[str, float]:
    return {
        "final/retention": result["retention"]["value"],
        "final/retention_lower": result["retention"]["ci95"][0],
        "final/return": result["student"]["return"]["mean"],
        "final/agreement": result["agreement"],
        "final/params": result["student"]["params"],
        "final/compression": result["compression"],
    }


def _finished(folder: RunFolder) -> Run | None:
    import json

    from policykd.students.load import load_student

    path = folder.path / "result.json"
    if not path.is_file():
        return None
    return Run(folder.path, json.loads(path.read_text()), load_student(folder.path))


def _free_folder(out: Path | str | None, root: Path, name: str) -> Path:
    """The folder that the user names, which must be free, or the next free one below `root`."""
    if out is None:
        return next_run_folder(root, name)
    path = Path(out)
    if not is_free(path):
        kind = "is not empty" if path.is_dir() else "is a file"
        raise InputError(f"{path}: exists and {kind}; choose another --out, or continue a run with --resume {path}")
    return path


def _env_config(env: EnvConfig | str | None) -> EnvConfig:
    return env if isinstance(env, EnvConfig) else EnvConfig(id=env)


def _run_name(teacher: Teacher) -> str:
    name = teacher.info.env_id or "run"
    return f"{teacher.info.algo}-{name}".replace("/", "-").replace(":", "-")
