"""What every method of learning needs around it: the resolved run, its folder, its clock and its baseline."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from policykd.evaluation.episodes import Episodes, policy_actor, random_actor, run_episodes
from policykd.evaluation.stats import refuse_random_teacher
from policykd.learn.setup.defaults import GATE_MOST, Measured, resolve
from policykd.learn.setup.disturbing import disturbed, noise_units
from policykd.learn.setup.started import sha256_of_start
from policykd.learn.setup.weighing import scaled, weighed
from policykd.rollout.envs import EnvSpec
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import resolved_yaml
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.files import write_atomic
from policykd.spine.stop import StopFlag
from policykd.spine.tracker import Tracker
from policykd.students.student import Student
from policykd.students.view import Partial, View, seeing
from policykd.teachers.base import Teacher
from policykd.teachers.ensemble import EnsembleTeacher

_VISITED_FOR_STATISTICS = 4096


@dataclass
class Work:
    """Progress of the run: the tracker to tell, the flag to obey, and the seconds spent in each stage."""

    tracker: Tracker
    stop: StopFlag
    seconds: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raises Interrupted when a stop was asked for."""
        self.stop.check()

    def advance(self, n: int = 1) -> None:
        """n units of the current stage are done."""
        self.tracker.advance(n)

    @contextmanager
    def stage(
        self,
        name: str,
        *,
        round: int | None = None,  # noqa: A002
        rounds: int | None = None,
        total: int | None = None,
    ) -> Iterator[None]:
        """Names the work inside, and adds its seconds."""
        self.check()
        self.tracker.stage(name, round=round, rounds=rounds, total=total)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


@dataclass(frozen=True)
class Session:
    """A run after preparation. `config` has no `auto` left; `baseline` holds returns on the selection seeds."""

    config: Config
    teacher: Teacher
    spec: EnvSpec
    folder: RunFolder
    work: Work
    baseline: dict[str, Any]

    @property
    def attempts(self) -> int:
        """To show on fresh seeds that a student holds what is demanded; the error is split among them."""
        return 1 if self.config.search is None else self.config.search.attempts

    @property
    def view(self) -> View:
        """What the student sees of the environment."""
        space, packing = self.teacher.observation_space, self.spec.packing or self.teacher.packing
        return View.of(self.config.student.keys, space, packing)

    def acting(self, student: Student) -> Student | Partial:
        """The student as it acts in this run's environment."""
        return seeing(student, self.teacher.observation_space, self.spec.packing or self.teacher.packing)

    def disturbed(self, kinds: Sequence[str]) -> EnvSpec:
        """The environment under these disturbances of the configuration."""
        return disturbed(self.spec, self.config.robust, self.baseline.get("noise_units"), kinds)

    @property
    def collecting(self) -> EnvSpec:
        """The environment in which data is collected."""
        robust = self.config.robust
        return self.disturbed(robust.on) if robust.collect else self.spec

    @property
    def select_seeds(self) -> range:
        """Seeds that choose."""
        e = self.config.evaluate
        return range(e.select_first_seed, e.select_first_seed + e.select_episodes)

    @property
    def report_seeds(self) -> range:
        """Seeds that are reported and choose nothing."""
        e = self.config.evaluate
        return range(e.first_seed, e.first_seed + e.episodes)


def prepare(config: Config, teacher: Teacher, spec: EnvSpec, folder: RunFolder, work: Work) -> Session:
    """Checks that teacher and environment fit, judges the teacher, and settles every `auto`.

    Raises InputError for a teacher that is no better than random.
    """
    facts = folder.load_facts("baseline")
    if isinstance(teacher, EnsembleTeacher):
        config, teacher = _voiced(config, teacher, spec, work, measured=facts is not None)
    if facts is not None:
        session = _resumed(config, teacher, spec, folder, work, facts)
    else:
        session = _measured(config, teacher, spec, folder, work)
    if teacher.value_teacher and not isinstance(teacher, EnsembleTeacher):
        from dataclasses import replace

        q_temperature = session.config.loss.q_temperature
        assert isinstance(q_temperature, float)
        session = replace(session, teacher=teacher.with_logit_scale(1.0 / q_temperature))
    return session


def _voiced(
    config: Config, teacher: EnsembleTeacher, spec: EnvSpec, work: Work, *, measured: bool
) -> tuple[Config, EnsembleTeacher]:
    """The ensemble with weights and temperatures that are known from the run's configuration, or measured now."""
    if measured:
        return config, scaled(teacher, config)
    with work.stage("baseline"):
        return weighed(config, teacher, spec, work, work.tracker)


def _resumed(
    config: Config, teacher: Teacher, spec: EnvSpec, folder: RunFolder, work: Work, facts: dict[str, Any]
) -> Session:
    if facts["teacher"] != teacher.fingerprint:
        raise InputError(
            f"{config.teacher}: its weights are not those that {folder.path} was started with; resume with that "
            "teacher (policykd.resume(folder, teacher=...) for a live model)"
        )
    work.seconds.update(facts["seconds"])
    _refuse_open(config, folder)
    if config.gate.most_episodes == "auto":  # of a run of version 0.1.0, which did not know this key
        most = max(GATE_MOST, config.gate.least_episodes)
        config = config.model_copy(update={"gate": config.gate.model_copy(update={"most_episodes": most})})
    if config.data.weighting == "auto":  # the same
        config = config.model_copy(update={"data": config.data.model_copy(update={"weighting": "none"})})
    return Session(config, teacher, spec, folder, work, facts)


def _refuse_open(config: Config, folder: RunFolder) -> None:
    """InputError where something is `auto` that was settled when the run began."""
    r = config.rollout
    settled = {
        "student.width": None if config.student.kind == "tree" else config.student.width,
        "rollout.timesteps": r.timesteps,
        "rollout.n_envs": r.n_envs,
        "rollout.n_steps": r.n_steps,
        "update.n_updates": config.update.n_updates,
        "loss.q_temperature": config.loss.q_temperature,
    }
    for name, value in settled.items():
        if value == "auto":
            raise InputError(
                f"{folder.path / 'config.yaml'}: {name} is auto, but this run has begun with a number; the file was "
                "altered, start a new run"
            )


def _measured(config: Config, teacher: Teacher, spec: EnvSpec, folder: RunFolder, work: Work) -> Session:
    if not config.evaluate.deterministic and (teacher.value_teacher or teacher.deterministic_teacher):
        work.tracker.note(f"{teacher.info.source} has no distribution of its own: it and its student act by the mode")
        config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"deterministic": True})})
    e = config.evaluate
    seeds = range(e.select_first_seed, e.select_first_seed + e.select_episodes)
    with work.stage("baseline", total=2 * len(seeds)):
        by_teacher = _judge(teacher, spec, seeds, config, work)
        actor = random_actor(teacher.action_space, config.seed)
        by_random = run_episodes(spec, actor, seeds, work)
        refuse_random_teacher(by_teacher.returns, by_random.returns)
    measured = Measured(float(by_teacher.lengths.mean()), by_teacher.visited)
    resolved = resolve(config, teacher.info, teacher, spec, measured)
    if config.data.dir is None and int(resolved.rollout.n_steps) < measured.episode_length:
        work.tracker.note(
            f"rollout: {resolved.rollout.n_steps} steps a round are less than the teacher's episodes of "
            f"{measured.episode_length:.0f}, so their ends are not seen; fewer rollout.n_envs see more of each"
        )
    facts = {
        "teacher": teacher.fingerprint,
        "start": sha256_of_start(config),
        "teacher_returns": by_teacher.returns.tolist(),
        "random_returns": by_random.returns.tolist(),
        "seconds": dict(work.seconds),
    }
    if config.robust.noise:
        facts["noise_units"] = noise_units(teacher, spec, measured.visited)
    write_atomic(folder.path / "config.yaml", resolved_yaml(resolved).encode())
    folder.save_facts("baseline", facts)
    return Session(resolved, teacher, spec, folder, work, facts)


def _judge(teacher: Teacher, spec: EnvSpec, seeds: range, config: Config, work: Work) -> Episodes:
    actor = policy_actor(teacher, config.evaluate.deterministic, config.seed)
    return run_episodes(spec, actor, seeds, work, keep_visited=_VISITED_FOR_STATISTICS)
