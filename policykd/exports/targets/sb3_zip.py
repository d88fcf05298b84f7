"""Target `sb3`: `policy.zip`, which PPO.load, MaskablePPO.load or SAC.load opens and trains on, and `vecnormalize.pkl`
where a VecNormalize holds the student's normaliser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policykd.exports.graph import Array, Feed, Graph
from policykd.exports.interface import ACTION, Interface, Runtime
from policykd.exports.pickled import write_model, write_statistics
from policykd.exports.sb3_models import clamps_log_std, model_of, nowhere, statistics_of
from policykd.exports.sb3_plan import plan_of, refuse
from policykd.exports.targets.table import Options
from policykd.exports.trusted_loads import load_model, load_statistics
from policykd.spine.errors import InputError, brief

RUNS_CODE = True  # stable-baselines3 unpickles both files
ZIP, STATISTICS = "policy.zip", "vecnormalize.pkl"
EXAMPLE = """\
from {package} import {algorithm}
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

env = make_vec_env("{env}")
env = VecNormalize.load("vecnormalize.pkl", env)  # leave out where the export has no such file
model = {algorithm}.load("{name}.zip", env=env)
action, _ = model.predict(env.reset(), deterministic=True)
model.learn(10_000)
"""


def check(graph: Graph, options: Options) -> None:
    """InputError for noise or distributions, nested observations, and spaces that stable-baselines3 does not take."""
    refuse(graph)


def write(graph: Graph, folder: Path, options: Options) -> dict[str, Any]:
    """`policy.zip`, and `vecnormalize.pkl` where observations are normalised outside of it; facts: the algorithm, and
    whether a plain policy holds the student or one that needs policykd."""
    refuse(graph)
    plan = plan_of(graph)
    size = write_model(folder / ZIP, model_of(graph, plan))
    files = [ZIP]
    if plan.normalised:
        size += write_statistics(folder / STATISTICS, statistics_of(graph, plan))
        files.append(STATISTICS)
    critics = "two critics and their targets" if plan.algorithm == "SAC" else "value network"
    outside = [f"{critics}: fresh, not the teacher's", "optimizer: fresh"]
    if plan.algorithm == "SAC" and clamps_log_std(graph):
        outside.append("log_std: SAC clamps it to -20 .. 2 where it samples")
    normaliser = [] if plan.plain and not plan.normalised else ["normaliser" + (f" ({STATISTICS})" * plan.plain)]
    return {
        "files": files,
        "inside": [*normaliser, "network", "action", *(["log_std"] if graph.head.kind == "numbers" else [])],
        "outside": outside,
        "bytes": size,
        "algorithm": plan.algorithm,
        "package": "sb3_contrib" if plan.algorithm == "MaskablePPO" else "stable_baselines3",
        "plain": plan.plain,
        "normalised": list(plan.normalised),
    }


def load(folder: Path, interface: Interface, facts: dict[str, Any]) -> Runtime:
    """The model, with its VecNormalize, on stable-baselines3; InputError where that cannot open them."""
    model = load_model(folder / ZIP, facts.get("algorithm"))
    normalize = None
    if STATISTICS in facts.get("files", []):
        venv = nowhere(model.observation_space, model.action_space)
        normalize = load_statistics(folder / STATISTICS, venv)
    return Model(model, normalize, interface)


class Model:
    """A loaded model as a `Runtime`. Observations of float64 are rounded to float32 first, as the student does; a
    VecNormalize in an environment takes them as they are, which is as exact or more."""

    def __init__(self, model: Any, normalize: Any, interface: Interface) -> None:
        self._model, self._normalize, self._interface = model, normalize, interface

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """The action; InputError where the model takes other observations or gives other actions."""
        masks = {} if feed.mask is None or not self._interface.mask_size else {"action_masks": feed.mask}
        try:
            observation = self._observation(feed)
            if self._normalize is not None:
                observation = self._normalize.normalize_obs(observation)
            action, _ = self._model.predict(observation, deterministic=True, **masks)
        except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
            reason = f"{type(error).__name__}: {brief(error)}"
            raise InputError(f"{ZIP}: does not fit the manifest beside it ({reason}); export again") from error
        return {ACTION: np.asarray(action)}

    def _observation(self, feed: Feed) -> Any:
        parts = [part.astype(np.float32) if part.dtype == np.float64 else part for part in feed.observations]
        ports = self._interface.ports
        return {str(port.path[0]): part for port, part in zip(ports, parts, strict=True)} if ports[0].path else parts[0]
