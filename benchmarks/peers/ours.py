"""policykd: its own rounds (`policykd.learn.methods.distill`), checkpoints and curves included."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.tasks import Checkpoint, Race, Setting, Stopwatch, Task
from policykd import Config
from policykd.learn.methods.distill import one_round
from policykd.learn.rounds.states import start
from policykd.learn.run import open_task
from policykd.learn.setup.session import Session, Work, prepare
from policykd.rollout.envs import EnvSpec
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.judging import EvaluateConfig
from policykd.spine.config.student import StudentConfig
from policykd.spine.stop import NeverStop
from policykd.spine.tracker import NullTracker
from policykd.students.mlp import MlpStudent
from policykd.teachers.base import Teacher


class Ours:
    """Opens teacher and environment once; each race has a folder of its own."""

    def __init__(self, task: Task, teachers: Path) -> None:
        evaluate = EvaluateConfig(select_episodes=10)
        student = StudentConfig(width=task.width, depth=2)
        config = Config(teacher=str(teachers / task.teacher), student=student, evaluate=evaluate, device="cpu")
        opened = open_task(config, None, None)
        self._folder = tempfile.TemporaryDirectory()
        with self._run_folder("prepared") as folder:
            work = Work(NullTracker(), NeverStop())
            self._session = prepare(opened.config, opened.teacher, opened.spec, folder, work)
        self._races = 0

    @property
    def teacher(self) -> Teacher:
        """As it was opened."""
        return self._session.teacher

    @property
    def spec(self) -> EnvSpec:
        """The environment, on the backend that policykd chooses."""
        return self._session.spec

    def race(self, setting: Setting, seed: int) -> Race:
        """One run."""
        self._races += 1
        with self._run_folder(f"race-{self._races}") as folder:
            work = Work(NullTracker(), NeverStop())
            config = _configured(self._session.config, setting, seed)
            yield from _rounds(replace(self._session, config=config, folder=folder, work=work), setting)

    def close(self) -> None:
        """Removes the folders."""
        self._folder.cleanup()

    def _run_folder(self, name: str) -> RunFolder:
        return RunFolder(Path(self._folder.name) / name)


def _rounds(session: Session, setting: Setting) -> Iterator[Checkpoint]:
    watch = Stopwatch()
    state = start(session)
    for index in range(setting.rounds):
        one_round(session, state, index)
        watch.stop()
        judging = session.work.seconds.pop("select", 0.0)  # of the last rounds, which no side pays for
        watch.seconds, watch.cpu = watch.seconds - judging, watch.cpu - judging
        updates = (index + 1) * setting.updates
        student = state.student_now(0)
        assert isinstance(student, MlpStudent)
        yield Checkpoint(student, watch.seconds, watch.cpu, state.timesteps, updates)
        watch.start()


def _configured(config: Config, setting: Setting, seed: int) -> Config:
    rollout = {"rounds": setting.rounds, "n_envs": setting.n_envs, "n_steps": setting.n_steps, "timesteps": "auto"}
    update = {
        "n_updates": setting.updates,
        "batch_size": setting.batch,
        "learning_rate": setting.learning_rate,
        "final_learning_rate": setting.rate(setting.total - 1),
    }
    return config.model_copy(
        update={
            "seed": seed,
            "rollout": config.rollout.model_copy(update=rollout),
            "update": config.update.model_copy(update=update),
        }
    )
