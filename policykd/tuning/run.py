"""A whole `policykd tune`: trials on the selection seeds, best.yaml, and the proof of the best student."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from policykd.learn.judging.proof import Proved, prove
from policykd.learn.judging.robustness import robustness
from policykd.learn.run import STUDENT, Run, Task, conclude, open_task
from policykd.learn.setup.session import Session
from policykd.spine.config.load import resolved_yaml
from policykd.spine.config.schema import Config
from policykd.spine.config.studies import TuneConfig
from policykd.spine.errors import ConfigError, InputError, Interrupted, NumericsError, brief
from policykd.spine.files import write_atomic
from policykd.students.load import load_student
from policykd.tuning.space import applied, current, space_of
from policykd.tuning.study import Study, folder_of, opened, require_optuna
from policykd.tuning.trial import GivenUp, OutOfTime, run_trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

BEST = "best.yaml"
_TRIALS = "trials"


def open_tuning(config: Config, teacher: Any, env: Callable[..., Any] | None) -> Task:
    """Teacher, environment and space, opened and checked; InputError for what is useless."""
    for name, command in (("search", "shrink"), ("collect", "collect")):
        if getattr(config, name) is not None:
            raise InputError(f"{name}: a setting of policykd {command}, of no use to tune: leave it out")
    require_optuna()
    config = config.model_copy(update={"tune": config.tune or TuneConfig()})
    space_of(config)
    return open_task(config, teacher, env)


def tune(session: Session) -> Run:
    """What a run of `policykd tune` does once its session is prepared."""
    config = session.config
    assert config.tune is not None
    knobs = space_of(config)
    warm_up = None if config.tune.pruning == "none" else max(config.rollout.rounds // 4, 1)
    with opened(session.folder.path, knobs, config.seed, warm_up) as study:
        study.begin(current(config, knobs))
        _Search(session, study).run()
        best = study.best
        if best is None:
            raise InputError(_nothing(study))
        return _proved(session, study, best)


class _Search:
    """All trials that are still to do."""

    def __init__(self, session: Session, study: Study) -> None:
        assert session.config.tune is not None
        self.session, self.study, self.config = session, study, session.config.tune
        self._until = None if self.config.timeout is None else time.monotonic() + self.config.timeout

    def run(self) -> None:
        """Until there are enough trials, or no time is left."""
        again = self.study.sweep()
        if again:
            self._note(
                f"tune: {again} trial{'s' if again > 1 else ''} had not ended, and {'go' if again > 1 else 'goes'} on"
            )
        while len(self.study.told) < self.config.trials and not self._late():
            trial = self.study.ask()
            number = len(self.study.told) + 1
            rounds = self.session.config.rollout.rounds
            self.session.work.tracker.stage(f"trial {number}/{self.config.trials}", total=rounds)
            self._note(f"trial {number}/{self.config.trials}: {self._one(trial)}")
            _write_best(self.session, self.study)

    def _one(self, trial: Trial) -> str:
        """One trial, told to the study; how it went."""
        session, begin = self.session, time.monotonic()
        path = session.folder.path / _TRIALS / folder_of(trial)

        def watch(index: int, agreement: float | None) -> None:
            session.work.advance()
            if agreement is not None:
                session.work.tracker.status(agreement=agreement)
                trial.report(agreement, index)
                if index < rounds - 1 and trial.should_prune():
                    raise GivenUp(f"agrees less than others after round {index + 1} ({100 * agreement:.1f} %)")
            if index < rounds - 1 and self._late():
                raise OutOfTime

        settings = ", ".join(f"{key} {_short(value)}" for key, value in trial.params.items())
        try:
            config = _config_of(session, trial)
            rounds = config.rollout.rounds
            ended = run_trial(session, config, path, watch)
        except (GivenUp, NumericsError, ConfigError) as error:
            self.study.give_up(trial, brief(error), {"seconds": {"update": time.monotonic() - begin}})
            outcome = f"given up: {brief(error)}"
        except OutOfTime:
            self.study.drop(trial, "out of time", {"seconds": {"update": time.monotonic() - begin}})
            outcome = "stopped: tune.timeout is over"
        except Interrupted:
            session.work.check()  # without the folder of the trial: the whole search is what is resumed
            raise
        else:
            self.study.end(trial, ended.retention, ended.facts)
            outcome = f"retention {100 * ended.retention:.1f} % on selection seeds"
        shutil.rmtree(path / "checkpoints", ignore_errors=True)
        with suppress(OSError):
            (path / ".lock").unlink()
        return f"{outcome} in {time.monotonic() - begin:.1f} s; {settings}"

    def _late(self) -> bool:
        """Whether the time is over; never before a first trial has ended."""
        return self._until is not None and time.monotonic() > self._until and self.study.best is not None

    def _note(self, line: str) -> None:
        self.session.work.tracker.note(line)


def _config_of(session: Session, trial: Trial | FrozenTrial) -> Config:
    """The complete configuration of the distillation that the trial is."""
    return applied(session.config.model_copy(update={"tune": None}), trial.params)


def _write_best(session: Session, study: Study) -> None:
    """best.yaml of the best trial so far."""
    best = study.best
    if best is not None:
        write_atomic(session.folder.path / BEST, resolved_yaml(_config_of(session, best)).encode())


def _proved(session: Session, study: Study, best: FrozenTrial) -> Run:
    """The best student on the report seeds, which chose nothing; as its own distillation would prove it."""
    _write_best(session, study)
    folder = session.folder.path / _TRIALS / folder_of(best)
    student = load_student(folder / STUDENT).to(session.teacher.device)
    config, teacher = _config_of(session, best), session.teacher
    if teacher.value_teacher:
        assert isinstance(config.loss.q_temperature, float)
        teacher = teacher.with_logit_scale(1.0 / config.loss.q_temperature)
    for trial in study.trials:
        for name, spent in trial.user_attrs.get("seconds", {}).items():
            session.work.seconds[name] = session.work.seconds.get(name, 0.0) + spent
    own = replace(session, config=config, teacher=teacher)
    proved = Proved(student, prove(own, student), int(best.user_attrs["timesteps"]))
    counts = {"ended": 0, "given_up": 0, "failed": 0}
    for trial in study.trials:
        counts[_STATES.get(trial.state.name, "failed")] += 1
    more = {
        "tune": {
            "trials": counts,
            "best": best.number,
            "retention": best.value,
            "settings": dict(best.params),
            "timesteps": sum(trial.user_attrs.get("timesteps", 0) for trial in study.trials),
        },
        **robustness(own, proved),
    }
    return conclude(
        own, proved, more, lambda _: {"trials.json": {"format": 1, "trials": list(map(_row, study.trials))}}
    )


_STATES = {"COMPLETE": "ended", "PRUNED": "given_up"}


def _row(trial: FrozenTrial) -> dict[str, Any]:
    facts = {name: trial.user_attrs.get(name) for name in ("agreement", "timesteps", "why")}
    state = _STATES.get(trial.state.name, "failed")
    return {"number": trial.number, "state": state, "retention": trial.value, "settings": dict(trial.params), **facts}


def _nothing(study: Study) -> str:
    why = next((trial.user_attrs["why"] for trial in reversed(study.trials) if "why" in trial.user_attrs), "none began")
    return f"tune: no trial came to its end, so there is no best one; the last was given up: {brief(why)}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
