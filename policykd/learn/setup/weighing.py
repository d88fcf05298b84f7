"""How much each teacher of an ensemble has to say, and how sharp its Q-values are: measured before the ensemble is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policykd.evaluation.episodes import policy_actor, random_actor, run_episodes
from policykd.learn.setup.defaults import q_temperature
from policykd.rollout.envs import EnvSpec
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.tracker import Tracker
from policykd.spine.types import Array, Progress
from policykd.teachers.base import Teacher
from policykd.teachers.ensemble import EnsembleTeacher

_VISITED = 4096  # states of each teacher for the spread of its Q-values


def weighed(
    config: Config, teacher: EnsembleTeacher, spec: EnvSpec, progress: Progress, tracker: Tracker
) -> tuple[Config, EnsembleTeacher]:
    """The ensemble with its weights and temperatures, and the configuration that names them as numbers.

    Each teacher plays the selection episodes alone where something of it must be measured. InputError where weights
    go by return and no teacher is better than random.
    """
    ensemble, e = config.ensemble, config.evaluate
    teachers = teacher.network.teachers
    seeds = range(e.select_first_seed, e.select_first_seed + e.select_episodes)
    means, visited = list[float](), list[Array | None]()
    for one in teachers:
        wanted = one.value_teacher and ensemble.q_temperatures == "auto" and config.loss.q_temperature == "auto"
        if not (wanted or ensemble.weights == "return"):
            visited.append(None)
            continue
        episodes = run_episodes(
            spec, policy_actor(one, e.deterministic, config.seed), seeds, progress, keep_visited=_VISITED
        )
        means.append(float(episodes.returns.mean()))
        visited.append(episodes.visited)
    weights: Sequence[float] = teacher.network.weights
    if ensemble.weights == "return":
        chance = run_episodes(spec, random_actor(teacher.action_space, config.seed), seeds, progress)
        weights = by_return(np.array(means), float(chance.returns.mean()))
        shown = ", ".join(f"{t.info.source} {w:.2f}" for t, w in zip(teachers, weights, strict=True))
        tracker.note(f"ensemble: weights by return: {shown}")
    temperatures = _temperatures(config, teachers, visited)
    ensemble = ensemble.model_copy(update={"weights": list(weights), "q_temperatures": temperatures})
    config = config.model_copy(update={"ensemble": ensemble})
    return config, scaled(teacher, config)


def scaled(teacher: EnsembleTeacher, config: Config) -> EnsembleTeacher:
    """The ensemble with the weights and temperatures that stand in a settled configuration."""
    weights, temperatures = config.ensemble.weights, config.ensemble.q_temperatures
    assert isinstance(weights, list) and isinstance(temperatures, list)
    return teacher.weighed(weights, [1.0 / t for t in temperatures])


def by_return(means: NDArray[np.float64], chance: float) -> list[float]:
    """Shares [K] in proportion to what mean returns [K] are above chance; who is below has no say."""
    above = np.maximum(means - chance, 0.0)
    if not above.any():
        raise InputError(
            f"ensemble.weights return: found mean returns {means.round(4).tolist()}, expected one above chance "
            f"({chance:.4g}): check the environment and the teachers' statistics"
        )
    return [float(share) for share in above / above.sum()]


def _temperatures(config: Config, teachers: Sequence[Teacher], visited: Sequence[Array | None]) -> list[float]:
    """What divides each one's Q-values; 1 where it has none."""
    given, common = config.ensemble.q_temperatures, config.loss.q_temperature
    if isinstance(given, list):
        return given
    found = []
    for teacher, states in zip(teachers, visited, strict=True):
        if not teacher.value_teacher:
            found.append(1.0)
        elif isinstance(common, float):
            found.append(common)
        else:
            assert states is not None
            found.append(q_temperature(teacher, states))
    return found
