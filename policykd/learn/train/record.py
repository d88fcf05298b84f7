"""The folder of a trained teacher: what is written, in which order, and how its return is measured."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from policykd.learn.train.archive import portable_zip
from policykd.spine.config.schema import TrainConfig
from policykd.spine.errors import Interrupted
from policykd.spine.files import sha256_of, write_atomic, write_json

FORMAT = 1
ShouldStop = Callable[[], bool]


class StopProgress:
    """The evaluation's view of a stop flag; it shows nothing. `out` is where the teacher lies meanwhile."""

    def __init__(self, stop: ShouldStop, out: Path) -> None:
        self._stop, self._out = stop, out

    def check(self) -> None:
        """Raises Interrupted when a stop was asked for."""
        if self._stop():
            raise Interrupted(f"stopped while the teacher was evaluated; it is in {self._out}, without its return")

    def advance(self, n: int = 1) -> None:
        """Episodes of a teacher are not reported one by one."""


def write_teacher(model: Any, config: TrainConfig, out: Path, command: str) -> dict[str, Any]:
    """Write every file of the folder, the record last; the record's "return" is None: not measured yet."""
    import yaml

    content = portable_zip(model)
    record = {
        "format": FORMAT,
        "algo": config.algo,
        "env_id": config.env.id,
        "env_kwargs": config.env.kwargs,
        "wrappers": config.env.wrappers,
        "normalized": config.normalize,
        "timesteps": int(model.num_timesteps),
        "seed": config.seed,
        "command": command,
        "versions": _versions(),
        "return": None,
        "sha256": sha256_of(content),
    }
    write_atomic(out / "teacher.zip", content)
    if config.normalize:
        write_json(out / "normalizer.json", _statistics(model.get_vec_normalize_env()))
    else:
        (out / "normalizer.json").unlink(missing_ok=True)  # an earlier teacher's would be applied to this one
    write_atomic(out / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())
    write_json(out / "teacher.json", record)
    return record


def measure_return(out: Path, config: TrainConfig, device: str, stop: ShouldStop) -> dict[str, Any]:
    """The return of the teacher in `out`, read back as `distill` reads it, over the report episodes.

    Episode i is `reset(seed=first_seed + i)` of a single environment.
    """
    from policykd.evaluation.episodes import policy_actor, run_episodes
    from policykd.rollout.envs import env_spec
    from policykd.rollout.fit import fit
    from policykd.teachers.load import load_teacher

    wanted = config.evaluate
    seeds = range(wanted.first_seed, wanted.first_seed + wanted.episodes)
    # a native vector class has one seed for all slots: anyone can repeat the single environment's
    teacher, spec = fit(load_teacher(out, device=device), str(out), replace(env_spec(config.env), backend="sync"))
    actor = policy_actor(teacher, wanted.deterministic, wanted.first_seed)
    returns = run_episodes(spec, actor, seeds, StopProgress(stop, out)).returns
    return {
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "episodes": wanted.episodes,
        "first_seed": wanted.first_seed,
        "deterministic": wanted.deterministic,
    }


def _versions() -> dict[str, str]:
    import gymnasium
    import numpy
    import stable_baselines3
    import torch

    modules = {"torch": torch, "stable_baselines3": stable_baselines3, "gymnasium": gymnasium, "numpy": numpy}
    return {"python": platform.python_version()} | {name: str(module.__version__) for name, module in modules.items()}


def _statistics(normalize: Any) -> dict[str, Any]:
    """observation = clip((raw - mean) / sqrt(var + epsilon), -clip_obs, clip_obs), in double precision."""
    return {
        "format": FORMAT,
        "mean": normalize.obs_rms.mean.tolist(),
        "var": normalize.obs_rms.var.tolist(),
        "clip_obs": float(normalize.clip_obs),
        "epsilon": float(normalize.epsilon),
    }
