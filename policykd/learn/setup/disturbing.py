"""From the configuration's `robust` to what is done to an environment, and whether it can be done to this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from policykd.rollout.disturbance import Disturbance, noise_unit
from policykd.rollout.envs import EnvSpec, make_env
from policykd.spine.config.robust import RobustConfig
from policykd.spine.errors import InputError
from policykd.spine.types import Array, TeacherPolicy


def noise_units(teacher: TeacherPolicy, spec: EnvSpec, visited: Array) -> list[float]:
    """What noise of 1 means for each number of a packed observation, flat; `visited` [K, *O] by the teacher."""
    return noise_unit(teacher.observation_space, spec.packing or teacher.packing, visited).reshape(-1).tolist()


def disturbed(spec: EnvSpec, robust: RobustConfig, units: Sequence[float] | None, kinds: Sequence[str]) -> EnvSpec:
    """The environment under the disturbances `kinds` of the configuration; `units` of `noise_units`, for noise."""
    if not kinds:
        return spec
    noise = None
    if "noise" in kinds:
        if units is None:
            raise InputError("robust.noise: this run began without it; start a new one")
        noise = np.asarray(units, np.float32) * np.float32(robust.noise)
    return replace(
        spec,
        disturbance=Disturbance(
            noise,
            robust.delay if "delay" in kinds else 0,
            robust.drop if "drop" in kinds else 0.0,
            _parameters(robust) if "parameters" in kinds else (),
        ),
    )


def randomisable(spec: EnvSpec, robust: RobustConfig, wanted: str) -> EnvSpec:
    """The environment, in single ones where its parameters are varied and the backend was left open.

    InputError for a backend that has no single environments, and for a parameter that cannot be varied.
    """
    if not robust.parameters:
        return spec
    if spec.backend in ("native", "envpool") and wanted != "auto":
        raise InputError(
            f"env.backend {spec.backend}: it cannot vary robust.parameters ({', '.join(robust.parameters)}), which "
            "takes single environments; use env.backend=sync or async"
        )
    spec = replace(spec, backend="async" if spec.backend == "async" else "sync")
    make_env(disturbed(spec, robust, None, ("parameters",))).close()
    return spec


def _parameters(robust: RobustConfig) -> tuple[tuple[str, float, float], ...]:
    return tuple((path, float(low), float(high)) for path, (low, high) in robust.parameters.items())
