"""Optuna's part: which settings come next, what is known of all of them (in SQLite), and which trial is given up.

What is asked next follows from the seed and from what is known, never from how often the search was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policykd.spine.errors import InputError, brief
from policykd.tuning.space import Knob, Value

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

STUDY = "study.db"
_STARTUP = 5  # trials before any is given up, or before settings are drawn near the best ones


class Study:
    """The trials of one search. `value` of a trial is what its best student retains on the selection seeds."""

    def __init__(self, path: Path, knobs: list[Knob], seed: int, warm_up: int | None) -> None:
        """`warm_up`: rounds before a trial may be given up; None: none is."""
        import optuna
        from sqlalchemy.engine import URL

        self._optuna, self._seed = optuna, seed
        storage = optuna.storages.RDBStorage(URL.create("sqlite", database=str(path / STUDY)).render_as_string())
        pruner = optuna.pruners.NopPruner() if warm_up is None else optuna.pruners.MedianPruner(_STARTUP, warm_up)
        self._storage = storage
        self._study = optuna.create_study(
            storage=storage, pruner=pruner, study_name="tune", direction="maximize", load_if_exists=True
        )
        self._knobs = {knob.key: _distribution(knob) for knob in knobs}

    def begin(self, values: dict[str, Value]) -> None:
        """The first trial has these values, where there is none yet."""
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(values)

    def sweep(self) -> int:
        """Trials that a dead process left running are closed, and tried again where they were; how many."""
        state = self._optuna.trial.TrialState
        left = self._study.get_trials(deepcopy=False, states=(state.RUNNING,))
        for trial in left:
            self._study.tell(trial.number, state=state.FAIL)
            reported = {str(step): value for step, value in trial.intermediate_values.items()}
            self._study.enqueue_trial(trial.params, user_attrs={"folder": folder_of(trial), "reported": reported})
        return len(left)

    def ask(self) -> Trial:
        """The next trial; its `params` are the settings."""
        sampler = self._optuna.samplers.TPESampler(seed=self._seed + len(self.told), n_startup_trials=_STARTUP)
        self._study.sampler = sampler
        trial = self._study.ask(self._knobs)
        for step, value in trial.user_attrs.get("reported", {}).items():  # what it said before it was interrupted
            trial.report(value, int(step))
        return trial

    def end(self, trial: Trial, value: float, facts: dict[str, Any]) -> None:
        """The trial came to its end; `facts` are kept with it."""
        self._keep(trial, facts)
        self._study.tell(trial, value)

    def give_up(self, trial: Trial, why: str, facts: dict[str, Any]) -> None:
        """The trial is not worth its time, or its settings are impossible."""
        self._keep(trial, {**facts, "why": why})
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def drop(self, trial: Trial, why: str, facts: dict[str, Any]) -> None:
        """The trial says nothing of its settings."""
        self._keep(trial, {**facts, "why": why})
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All of them, in their order."""
        return self._study.get_trials(deepcopy=False)

    @property
    def told(self) -> list[FrozenTrial]:
        """Those that ended or were given up."""
        state = self._optuna.trial.TrialState
        return [trial for trial in self.trials if trial.state in (state.COMPLETE, state.PRUNED)]

    @property
    def best(self) -> FrozenTrial | None:
        """The highest value; among equals the one that agrees more with the teacher, then the earlier."""
        ended = [trial for trial in self.told if trial.state == self._optuna.trial.TrialState.COMPLETE]

        def rank(trial: FrozenTrial) -> tuple[float, float, int]:
            return trial.value or 0.0, trial.user_attrs.get("agreement") or 0.0, -trial.number

        return max(ended, key=rank, default=None)

    def close(self) -> None:
        """Lets go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _keep(self, trial: Trial, facts: dict[str, Any]) -> None:
        for name, value in facts.items():
            trial.set_user_attr(name, value)


def folder_of(trial: FrozenTrial | Trial) -> str:
    """The name of the trial's folder: that of the one it goes on with, or its own."""
    return str(trial.user_attrs.get("folder") or f"{trial.number:04d}")


@contextmanager
def opened(path: Path, knobs: list[Knob], seed: int, warm_up: int | None) -> Iterator[Study]:
    """The study in the folder, with Optuna silent."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = Study(path, knobs, seed, warm_up)
    try:
        yield study
    finally:
        study.close()
        optuna.logging.set_verbosity(before)


def require_optuna() -> None:
    """InputError where it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError(f"tune: Optuna is not installed ({brief(error)}): pip install 'policykd[tune]'") from None


def _distribution(knob: Knob) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if knob.choices:
        return CategoricalDistribution(knob.choices)
    if knob.whole:
        return IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return FloatDistribution(knob.low, knob.high, log=knob.log)
