"""The configuration: frozen, typed, each hyper-parameter documented once, where it is declared.

`auto` means: derived from spaces, the teacher's distribution and measured statistics when the run starts
(`policykd.learn.setup.defaults`), never from an environment's name; the resolved value is saved with the run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.aside import AsideConfig
from policykd.spine.config.augment import AugmentConfig
from policykd.spine.config.combinations import (
    refuse_aside,
    refuse_augmented_sequences,
    refuse_compression,
    refuse_held_out,
    refuse_misfits,
    refuse_offline,
    refuse_patience,
)
from policykd.spine.config.compress import CompressConfig
from policykd.spine.config.data import DataConfig, UpdateConfig
from policykd.spine.config.ensemble import EnsembleConfig
from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.judging import EvaluateConfig, GateConfig, SearchConfig
from policykd.spine.config.loss import LossConfig
from policykd.spine.config.procedures import ProgressiveConfig, refuse_procedures, refuse_together
from policykd.spine.config.robust import RobustConfig
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.config.section import Positive, Section, Seed
from policykd.spine.config.student import StudentConfig
from policykd.spine.config.studies import CollectConfig, TuneConfig


class EnvConfig(Section):
    """The environment; by default the one the teacher was trained in."""

    id: str | None = None
    """A registered id, or `package:Id` with `allow_import`; None takes the teacher's."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of `gymnasium.make`."""
    wrappers: list[str | dict[str, dict[str, Any]]] = []
    """Wrappers, innermost first: the name of a class of `gymnasium.wrappers`, TimeFeatureWrapper, AtariWrapper,
    StackFrames, one of minigrid.wrappers that only observes (docs/students.md), `package.module:Class` with
    `allow_import`, or {name: {keyword: value}}; none takes the teacher's."""
    allow_import: bool = False
    """Whether ids and wrappers may import a package that they name, those of the teacher's folder included."""
    backend: Literal["auto", "native", "sync", "async", "envpool"] = "auto"
    """How the environments are stepped: native (the environment's own vector class), sync (one after the other), async
    (in worker processes, one a core, which pays where a step takes long) or envpool (that package's own
    implementation, `policykd[envpool]`); auto: native where there is such a class, else sync. Episodes are judged by
    async or envpool where it is chosen, else one after the other, since a vector class has no seed for each."""
    step_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that a worker process of the async backend may take for a step before the run gives up."""


class TaskConfig(Section):
    """One more task for the same student (docs/methods/multitask.md)."""

    teacher: str
    """As `teacher` of the run."""
    vec_normalize: str | None = None
    """As `vec_normalize` of the run."""
    env: str | None = None
    """A registered id; None takes the teacher's."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of `gymnasium.make`."""


class Config(Section):
    """One complete run."""

    teacher: str = "builtin:cartpole"
    """An SB3 zip, an RL-Zoo folder, a run folder of ours, `builtin:NAME`, or `hf:ORG/REPO[@COMMIT]`."""
    vec_normalize: str | None = None
    """Statistics (vecnormalize.pkl or our normalizer.json) to apply instead of those that the source of `teacher`
    brings; the other teachers of an ensemble bring their own."""
    trust: bool = False
    """Whether stable-baselines3's own loader, which runs what a file holds, may open the teacher where only the file's
    own code understands it. In a file it counts only where the user says --trust as well."""
    ensemble: EnsembleConfig = EnsembleConfig()
    env: EnvConfig = EnvConfig()
    student: StudentConfig = StudentConfig()
    compress: CompressConfig = CompressConfig()
    loss: LossConfig = LossConfig()
    rollout: RolloutConfig = RolloutConfig()
    data: DataConfig = DataConfig()
    update: UpdateConfig = UpdateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    augment: AugmentConfig = AugmentConfig()
    aside: AsideConfig = AsideConfig()
    robust: RobustConfig = RobustConfig()
    tasks: list[TaskConfig] = []
    """Further tasks that the same student learns, each with its teacher in its environment."""
    progressive: ProgressiveConfig = ProgressiveConfig()
    search: SearchConfig | None = None
    """Of `policykd shrink` only."""
    collect: CollectConfig | None = None
    """Of `policykd collect` only."""
    tune: TuneConfig | None = None
    """Of `policykd tune` only."""
    finetune: FinetuneConfig | None = None
    """Of `policykd finetune` only."""
    seed: Seed = 0
    """The root of every random number of the run."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """CPU threads of one operation. It is part of the result: another number changes the last bits."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        refuse_misfits(self.student, self.data, self.loss, searching=self.search is not None)
        refuse_augmented_sequences(self.student, self.augment, together=bool(self.tasks))
        elsewhere = "in a search" if self.search is not None else ("with several tasks" if self.tasks else None)
        refuse_patience(self.data, self.loss, self.update.patience)
        refuse_held_out(self.student, self.data, elsewhere)
        without = elsewhere or ("with data.dir" if self.data.dir is not None else None)
        chained = "with progressive, where students teach, whose layers and values nobody asks"
        refuse_aside(self.student, self.aside, self.augment, without or (chained if self.progressive.on else None))
        refuse_offline(self.data, self.rollout, self.robust, self.loss)
        several = self.search is not None or bool(self.tasks) or self.progressive.on
        refuse_compression(self.student, self.compress, several=several)
        others = {"shrink": self.search, "collect": self.collect, "tune": self.tune}
        command = next((name for name, section in others.items() if section is not None), None)
        refuse_procedures(self.student, self.loss, self.data, command, self.progressive)
        if self.tasks:
            refuse_together(self.student, self.data, command, self.progressive, self.gate, self.robust)
        return self


def task_configs(config: Config) -> list[Config]:
    """The configuration of each further task as if it were learned alone."""
    found = []
    for task in config.tasks:
        backend = "auto" if config.env.backend == "native" else config.env.backend  # which not every environment has
        named: dict[str, Any] = {"id": task.env, "kwargs": task.kwargs, "wrappers": [], "backend": backend}
        env = config.env.model_copy(update=named)
        own: dict[str, Any] = {"teacher": task.teacher, "vec_normalize": task.vec_normalize, "env": env, "tasks": []}
        found.append(config.model_copy(update={**own, "ensemble": EnsembleConfig()}))
    return found


class TrainConfig(Section):
    """A teacher trained with stable-baselines3 or sb3-contrib."""

    env: EnvConfig
    algo: Literal[
        "ppo", "a2c", "dqn", "sac", "td3", "ddpg", "trpo", "qrdqn", "tqc", "ars", "maskable_ppo", "recurrent_ppo"
    ]
    timesteps: Positive
    n_envs: Positive = 1
    seed: Seed = 0
    device: str = "auto"
    threads: Positive = 1
    hyperparameters: dict[str, Any] = {}
    """Keyword arguments of the algorithm's class; a number may be {linear: start} for a schedule that falls to 0."""
    policy_kwargs: dict[str, Any] = {}
    """net_arch, activation_fn (by name: tanh, relu, elu), log_std_init ... of the policy."""
    normalize: bool = False
    """VecNormalize on observations and rewards; the statistics are saved beside the zip."""
    evaluate: EvaluateConfig = EvaluateConfig()
