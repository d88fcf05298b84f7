"""A live stable-baselines3 or sb3-contrib model as a teacher: a copy, which later training does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from policykd.spine.errors import InputError
from policykd.spine.spaces import decode_space, encode_space
from policykd.teachers.assemble import Origin, make_teacher
from policykd.teachers.base import Teacher
from policykd.teachers.env_ids import is_registered
from policykd.teachers.modelspec import EXTRACTORS, POLICY_ALGOS, ModelSpec
from policykd.teachers.normalize import KeyedNormalizer, Normalizer, Statistics
from policykd.teachers.sb3zip import activation_name

if TYPE_CHECKING:
    from gymnasium import Space


def is_model(source: Any) -> bool:
    """Whether the object looks like a model of stable-baselines3."""
    return all(hasattr(source, name) for name in ("policy", "observation_space", "action_space", "predict", "learn"))


def from_model(model: Any, vec_normalize: Any = None) -> Teacher:
    """A teacher from a live model.

    `vec_normalize` is the VecNormalize wrapper whose statistics apply; None takes the one around the model's own
    environment, if there is one. InputError for a policy class or features extractor that is not supported.
    """
    spec = _spec(model)
    normalizer = _normalizer(vec_normalize if vec_normalize is not None else _own_normalize(model))
    env_id, env_kwargs = _environment(model)
    notes = ("observations are normalised with the model's VecNormalize statistics",) if normalizer else ()
    origin = Origin(spec.name, env_id=env_id, trained_on=env_id, env_kwargs=env_kwargs, notes=notes)
    return make_teacher(spec, normalizer, origin)


def _spec(model: Any) -> ModelSpec:
    policy = type(model.policy)
    dotted = f"{policy.__module__}.{policy.__qualname__}"
    name = f"live {type(model).__name__}"
    if dotted not in POLICY_ALGOS:
        known = ", ".join(sorted({known.rpartition(".")[2] for known in POLICY_ALGOS}))
        raise InputError(
            f"{name}: policy class {dotted!r} is not supported: expected one of {known}; train with MlpPolicy"
        )
    parts = [getattr(model.policy, part, None) for part in ("actor", "q_net", "quantile_net")]
    owner = next((part for part in parts if part is not None), model.policy)
    kind = type(owner.features_extractor)
    extractor = f"{kind.__module__}.{kind.__qualname__}"
    if extractor not in EXTRACTORS:
        raise InputError(
            f"{name}: features extractor {extractor!r} is not supported: expected FlattenExtractor, NatureCNN or "
            "CombinedExtractor"
        )
    algo = type(model).__name__.lower()
    activation = model.policy.activation_fn
    return ModelSpec(
        name=name,
        algo=algo if algo in POLICY_ALGOS[dotted] else POLICY_ALGOS[dotted][0],
        policy=dotted,
        observation_space=_copied(model.observation_space),
        action_space=_copied(model.action_space),
        activation=activation_name(f"{activation.__module__}.{activation.__qualname__}", name),
        weights={key: value.detach().cpu().numpy().copy() for key, value in model.policy.state_dict().items()},
        options=_options(model.policy),
        versions={"stable_baselines3": _sb3_version()},
    )


def _copied(space: Space[Any]) -> Space[Any]:
    return decode_space(encode_space(space))


def _options(policy: Any) -> dict[str, Any]:
    """What the network depends on beside its weights."""
    actor = getattr(policy, "actor", None)
    owner = actor if actor is not None else policy
    options: dict[str, Any] = {
        "squash_output": bool(policy.squash_output),
        "normalize_images": bool(policy.normalize_images),
    }
    epsilon = getattr(policy, "actor_kwargs", {}).get("batch_norm_eps")  # of CrossQ
    if epsilon is not None:
        options["batch_norm_eps"] = float(epsilon)
    distribution = getattr(owner, "action_dist", None)
    if distribution is not None and hasattr(distribution, "use_expln"):
        options["use_expln"] = bool(distribution.use_expln)
    if hasattr(owner, "clip_mean"):
        options["clip_mean"] = float(owner.clip_mean)
    return options


def _own_normalize(model: Any) -> Any:
    get = getattr(model, "get_vec_normalize_env", None)
    return get() if get is not None else None


def _normalizer(vec_normalize: Any) -> Statistics | None:
    if vec_normalize is None or not vec_normalize.norm_obs:
        return None
    statistics = vec_normalize.obs_rms
    if isinstance(statistics, dict):
        keys = [key for key in statistics if key in (vec_normalize.norm_obs_keys or statistics)]
        return KeyedNormalizer({key: _moments(statistics[key], vec_normalize) for key in keys})
    return _moments(statistics, vec_normalize)


def _moments(statistics: Any, vec_normalize: Any) -> Normalizer:
    mean, var = np.array(statistics.mean, np.float64), np.array(statistics.var, np.float64)
    return Normalizer(mean, var, float(vec_normalize.epsilon), float(vec_normalize.clip_obs))


def _environment(model: Any) -> tuple[str | None, dict[str, Any]]:
    """The id and keyword arguments of the model's environment, where it was made from a registered id."""
    env = getattr(model, "env", None)
    if env is None:
        return None, {}
    specs = env.get_attr("spec") if env.has_attr("spec") else [None]
    spec = specs[0]
    if spec is None or not is_registered(spec.id):
        return None, {}
    return spec.id, {key: value for key, value in spec.kwargs.items() if key != "render_mode"}


def _sb3_version() -> str:
    from importlib.metadata import version

    return version("stable_baselines3")
