"""Learning, with judgements on the selection seeds between updates, and checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.finetuning.kickstart import Kickstart, weight
from policykd.finetuning.models import Model, model_of, student_of
from policykd.finetuning.state import Judgement, Progress, facts_of, restore, tensors_of
from policykd.learn.setup.session import Session, Work
from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.errors import Interrupted, NumericsError
from policykd.spine.seeding import TRAINING_SEEDS_FROM
from policykd.students.mlp import MlpStudent

_STRIDE = 10_007  # of the seeds of a run that goes on, so that it plays other episodes


class _Silent:
    """Episodes between updates stop when they must, and advance no bar."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def check(self) -> None:
        """Raises Interrupted when a stop was asked for."""
        self._work.check()

    def advance(self, n: int = 1) -> None:
        """Nothing."""


class Finetuning:
    """One run: the model, what it is about, and how far it is."""

    def __init__(self, session: Session, student: MlpStudent) -> None:
        config = session.config.finetune
        assert config is not None
        self.session, self.student, self.config = session, student, config
        self.kick = Kickstart(session.teacher, config, config.kickstart)
        self.model: Model = model_of(student, self.kick, session.spec, session.config)
        self.model.set_logger(Logger(None, []))
        self.progress = Progress(student)
        found = session.folder.load_state()
        if found is not None:
            self.progress = restore(self.model, *found, student)
            session.work.seconds.update(found[1]["seconds"])
        done = self.model.num_timesteps
        set_random_seed(session.config.seed + done)
        env: Any = self.model.get_env()
        env.seed((TRAINING_SEEDS_FROM + session.config.seed + _STRIDE * done) % 2**32)

    def run(self) -> Progress:
        """Learns to the end. Interrupted: what is there is safe."""
        left = self.config.timesteps - self.model.num_timesteps
        if left > 0:
            with self.session.work.stage("finetune", total=left):
                try:
                    self.model.learn(left, callback=_Hook(self), reset_num_timesteps=False)
                    self.judge()
                except Interrupted:
                    self.save()
                    raise
            self.save()
        env: Any = self.model.get_env()
        env.close()
        return self.progress

    def judge(self) -> None:
        """The student on the selection seeds, now: its place in the history, and lambda from here on."""
        session, baseline = self.session, self.session.baseline
        student = student_of(self.model, self.student)
        if not all(bool(part.isfinite().all()) for part in (*student.weights().values(), student.log_std)):
            raise NumericsError(
                f"the student's weights are not finite after {self.model.num_timesteps} timesteps: lower "
                "finetune.learning_rate, or look for NaN in the environment's observations and rewards"
            )
        actor = policy_actor(student, session.config.evaluate.deterministic, session.config.seed)
        returns = run_episodes(session.spec, actor, session.select_seeds, _Silent(session.work)).returns
        teacher, random = (float(np.mean(baseline[f"{who}_returns"])) for who in ("teacher", "random"))
        held = (float(returns.mean()) - random) / (teacher - random)
        done = self.model.num_timesteps
        self.kick.weight = weight(self.config, min(done / self.config.timesteps, 1.0), held)
        self.progress.add(Judgement(done, float(returns.mean()), held, self.kick.weight), student)
        figures = {"return": float(returns.mean()), "retention": held, "lambda": self.kick.weight}
        learned = {f"update/{name}": value for name, value in self.model.figures.items()}
        scalars = {f"finetune/{name}": value for name, value in figures.items()}
        session.work.tracker.scalars(scalars | {"finetune/kl": self.kick.last} | learned, done)
        session.work.tracker.status(**{"return": figures["return"], "retention": held, "lambda": self.kick.weight})

    def save(self) -> None:
        """A checkpoint."""
        facts = facts_of(self.model, self.progress) | {"seconds": self.session.work.seconds}
        tensors = tensors_of(self.model, self.progress.best)
        self.session.folder.save_state(len(self.progress.history), tensors, facts)


class _Hook(BaseCallback):
    """Between rollouts: judgements where they are due, lambda's schedule, checkpoints; at every step: stops."""

    def __init__(self, run: Finetuning) -> None:
        super().__init__()
        self.run, self.reported = run, run.model.num_timesteps
        self.due = [
            step for step in judged_at(run.config) if step > run.model.num_timesteps or not run.progress.history
        ]
        self.after_warmup = not run.model.warmup.done

    def _on_rollout_start(self) -> None:
        run, now = self.run, self.num_timesteps
        first = self.after_warmup and run.model.warmup.done and run.model._n_updates >= run.model.few
        if first or (self.due and now >= self.due[0]):
            self.after_warmup = self.after_warmup and not first
            self.due = [step for step in self.due if step > now]
            run.judge()
            run.save()
        if run.config.schedule == "linear":
            run.kick.weight = weight(run.config, min(now / run.config.timesteps, 1.0), 0.0)

    def _on_step(self) -> bool:
        self.run.session.work.check()
        self.run.session.work.advance(self.num_timesteps - self.reported)
        self.reported = self.num_timesteps
        return True


def judged_at(config: FinetuneConfig) -> list[int]:
    """Timesteps from which on the next judgement is due, the one at the start included."""
    return [round(config.timesteps * part / config.judgements) for part in range(config.judgements)]
