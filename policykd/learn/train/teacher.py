"""Train a teacher with stable-baselines3 or sb3-contrib, and write it as a folder that policykd reads.

The folder holds `teacher.zip` (opens with SB3's own `load`, no optimizer state), `teacher.json` (the record: versions,
return, sha256), `config.yaml` (resolved) and, with `normalize`, `normalizer.json` (ours: no pickle).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policykd.learn.train.record import ShouldStop, measure_return, write_teacher
from policykd.learn.train.settings import algorithm_class, algorithm_kwargs, policy_kwargs, policy_name
from policykd.spine.config.schema import TrainConfig
from policykd.spine.errors import InputError, Interrupted, NumericsError
from policykd.spine.files import make_folder, write_json
from policykd.spine.seeding import TRAINING_SEEDS_FROM
from policykd.spine.wrappers import from_file

OnProgress = Callable[[int, int, dict[str, float]], None]
_REPORTS = 100  # how often `progress` is called in a run


def train_teacher(
    config: TrainConfig,
    out: Path,
    *,
    command: str = "policykd train --config config.yaml",
    progress: OnProgress | None = None,
    stop: ShouldStop | None = None,
) -> dict[str, Any]:
    """Train, evaluate and write a teacher to the folder `out`; returns the record that its `teacher.json` holds.

    `progress` is called with (timesteps done, timesteps in all, {"return": mean of the last episodes}; empty before
    the first episode ends). `stop` is polled at every step: when it returns True, what is there is written (the
    record's "return" is then null) and Interrupted is raised. `command` goes into the record as it is.
    """
    out, stop = Path(out), stop or _never
    make_folder(out)
    with _threads(config.threads):
        model = _build(config)
        try:
            stopped = _learn(model, config, progress, stop)
            record = write_teacher(model, config, out, command)
            if stopped:
                done = f"{record['timesteps']} of {config.timesteps}"
                raise Interrupted(f"stopped after {done} timesteps; the teacher so far is in {out}")
            record["return"] = measure_return(out, config, str(model.device), stop)
            write_json(out / "teacher.json", record)
        finally:
            model.get_env().close()
    return record


def _never() -> bool:
    return False


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _build(config: TrainConfig) -> Any:
    """The untrained SB3 model on its environments; InputError for every setting that SB3 refuses."""
    from policykd.spine.device import resolve_device

    venv = _make_venv(config)
    try:
        hyperparameters = algorithm_kwargs(config.algo, config.hyperparameters, venv.action_space)
        policy = policy_name(config.algo, venv.observation_space)
        model = algorithm_class(config.algo)(
            policy,
            _normalized(venv, config, hyperparameters),
            policy_kwargs=policy_kwargs(config.algo, policy, config.policy_kwargs),
            seed=config.seed,
            device=resolve_device(config.device),
            **hyperparameters,
        )
    except InputError:
        venv.close()
        raise
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        venv.close()
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{config.algo} cannot be set up for {config.env.id}: {reason}; mend the configuration"
        ) from error
    model.get_env().seed(TRAINING_SEEDS_FROM + config.seed)  # apart from the seeds that choose or are reported
    return model


def _make_venv(config: TrainConfig) -> Any:
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    from policykd.rollout.envs import env_spec, make_env
    from policykd.rollout.masks import must_have_masks

    if config.env.id is None:
        raise InputError("env.id: missing; a teacher is trained in an environment: set it, for example to CartPole-v1")
    from_file(config.env.wrappers, "env.wrappers")  # so that the record of the teacher can be read again
    spec = env_spec(config.env)
    if config.algo == "maskable_ppo":
        must_have_masks(spec, config.algo)
    return DummyVecEnv([lambda: Monitor(make_env(spec))] * config.n_envs)


def _normalized(venv: Any, config: TrainConfig, hyperparameters: dict[str, Any]) -> Any:
    """With `normalize`, the environments behind VecNormalize; its reward scale follows the algorithm's gamma."""
    if not config.normalize:
        return venv
    from gymnasium import spaces
    from stable_baselines3.common.vec_env import VecNormalize

    if isinstance(venv.observation_space, spaces.Dict):
        raise InputError(
            "normalize: observations are a Dict, expected one array: leave it out, or add FlattenObservation to "
            "env.wrappers"
        )
    return VecNormalize(venv, gamma=hyperparameters.get("gamma", 0.99))


def _learn(model: Any, config: TrainConfig, progress: OnProgress | None, stop: ShouldStop) -> bool:
    """Train; True when `stop` ended it."""
    from stable_baselines3.common.callbacks import BaseCallback

    total, every = config.timesteps, max(config.timesteps // _REPORTS, 1)

    class Hook(BaseCallback):
        reported = 0

        def _on_step(self) -> bool:
            if stop():
                # ARS ignores a returned False, so the way out is one for all: an exception
                raise Interrupted("stopped")
            if self.num_timesteps - self.reported >= every:
                self._report()
            return True

        def _on_training_end(self) -> None:
            self._report()

        def _report(self) -> None:
            done = min(self.num_timesteps, total)
            if progress is not None and done > self.reported:
                self.reported = done
                progress(done, total, _recent_return(self.model))

    try:
        model.learn(total, callback=Hook())
    except Interrupted:
        return True
    except ValueError:  # so torch's distributions refuse a NaN, in a message of many lines that names no cause
        _check_finite(model)
        raise
    _check_finite(model)
    return False


def _check_finite(model: Any) -> None:
    """NumericsError where training left weights that are not numbers: such a teacher is not written."""
    import torch

    if not all(bool(torch.isfinite(weights).all()) for weights in model.policy.state_dict().values()):
        raise NumericsError(
            f"the teacher's weights are not finite after {model.num_timesteps} timesteps: lower "
            "hyperparameters.learning_rate, or look for NaN in the environment's observations and rewards"
        )


def _recent_return(model: Any) -> dict[str, float]:
    returns = [float(episode["r"]) for episode in model.ep_info_buffer or ()]
    return {"return": sum(returns) / len(returns)} if returns else {}
