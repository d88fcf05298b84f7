"""How much each teacher of an ensemble has to say, and how sharp its Q-values are: measured before the ensemble is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def as_labelled(config: Config, teacher: EnsembleTeacher, data: Any) -> tuple[Config, EnsembleTeacher]:
    """The ensemble before labelled data is learned from, and the configuration that names its numbers: what either
    leaves to be measured is what it was when the data was labelled. `data`: what the data's index says of its ensemble.
    """
    said = _numbers(data, len(teacher.network.teachers))
    if said is None:  # no such data, which `policykd.learn.rounds.offline` refuses
        return config, teacher
    ensemble, (weights, temperatures) = config.ensemble, said
    if ensemble.weights == "return":
        shown = ", ".join(f"{weight:.2f}" for weight in weights)
        teacher = teacher.weighed(weights, [one.logit_scale for one in teacher.network.teachers])
        line = f"ensemble: weights by return: {shown}, by which the data was labelled"
        noted = teacher.with_info(notes=(*teacher.info.notes, line))
        assert isinstance(noted, EnsembleTeacher)
        teacher = noted
    if ensemble.q_temperatures != "auto" or config.loss.q_temperature != "auto":
        temperatures = _temperatures(config, teacher.network.teachers, [None] * len(weights))
    settled = {"weights": list(teacher.network.weights), "q_temperatures": temperatures}
    config = config.model_copy(update={"ensemble": ensemble.model_copy(update=settled)})
    return config, scaled(teacher, config)


def _numbers(data: Any, count: int) -> tuple[list[float], list[float]] | None:
    """Weights and temperatures of `count` teachers; None where these are none."""
    parts = [data.get(name) if isinstance(data, dict) else None for name in ("weights", "q_temperatures")]
    for part, least in zip(parts, (0.0, 1e-300), strict=True):
        plain = isinstance(part, list) and len(part) == count and all(type(x) is float for x in part)
        if not plain or not all(least <= x < float("inf") for x in part or ()):
            return None
    weights, temperatures = parts
    return (weights, temperatures) if weights and temperatures and any(weights) else None


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
