"""A live stable-baselines3 or sb3-contrib model as a teacher: a copy, which later training does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from policykd.spine.spaces import decode_space, encode_space
from policykd.spine.types import TeacherInfo
from policykd.teachers.assemble import Origin, make_teacher, start_note
from policykd.teachers.base import Interface, Teacher
from policykd.teachers.env_ids import is_registered
from policykd.teachers.modelspec import EXTRACTORS, MASKABLE_ALGOS, POLICY_ALGOS, RECURRENT_ALGOS, ModelSpec
from policykd.teachers.normalize import KeyedNormalizer, Normalizer, Statistics
from policykd.teachers.recurrent import NOTE, RecurrentTeacher
from policykd.teachers.sb3zip import activation_name, is_known_activation
from policykd.teachers.wrapped import RecurrentPolicyNetwork, wrap

if TYPE_CHECKING:
    from gymnasium import Space


def is_model(source: Any) -> bool:
    """Whether the object looks like a model of stable-baselines3."""
    return all(hasattr(source, name) for name in ("policy", "observation_space", "action_space", "predict", "learn"))


def from_model(model: Any, vec_normalize: Any = None) -> Teacher:
    """A teacher from a live model.

    `vec_normalize` is the VecNormalize wrapper whose statistics apply; None takes the one around the model's own
    environment, if there is one. A policy class, features extractor or activation of the user's own is wrapped
    (`wrapped_teacher`). InputError for a policy that cannot be.
    """
    name = f"live {type(model).__name__}"
    normalizer = _normalizer(vec_normalize if vec_normalize is not None else _own_normalize(model))
    env_id, env_kwargs = _environment(model)
    notes = ("observations are normalised with the model's VecNormalize statistics",) if normalizer else ()
    origin = Origin(name, env_id=env_id, trained_on=env_id, env_kwargs=env_kwargs, notes=notes)
    if _own_parts(model.policy):
        return wrapped_teacher(model, normalizer, origin)
    return make_teacher(_spec(model), normalizer, origin)


def wrapped_teacher(model: Any, normalizer: Statistics | None, origin: Origin) -> Teacher:
    """A teacher whose labels come from a copy of the live policy object, with whatever extractor it has.

    InputError for a policy that does not act as those of stable-baselines3 do.
    """
    network = wrap(model.policy, origin.source)
    recurrent = isinstance(network, RecurrentPolicyNetwork)
    own = _own_parts(model.policy) or [type(_extractor(model.policy)).__name__]
    activation = str(getattr(getattr(model.policy, "activation_fn", None), "__name__", "own"))
    note = f"labels come from the policy object itself ({', '.join(own)})"
    info = TeacherInfo(
        source=origin.source,
        sha256=origin.sha256 or network.fingerprint().hexdigest(),
        algo=_algo(model),
        env_id=origin.env_id,
        trained_on=origin.trained_on,
        layers=network.sizes,
        activation=activation.lower() if activation.isidentifier() else "own",
        normalised=normalizer is not None,
        gsde=bool(getattr(model, "use_sde", False)),
        footprint=network.footprint(normalizer.constants if normalizer else 0),
        env_kwargs=dict(origin.env_kwargs),
        versions={"stable_baselines3": _sb3_version()},
        wrappers=origin.wrappers,
        notes=(*origin.notes, note, *start_note(model.action_space), *((NOTE,) if recurrent else ())),
    )
    spaces = Interface(_copied(model.observation_space), _copied(model.action_space))
    teacher = (RecurrentTeacher if recurrent else Teacher)(network, spaces, info, normalizer)
    return teacher if origin.sha256 else teacher.with_info(sha256=teacher.fingerprint)


def _algo(model: Any) -> str:
    """The algorithm's name; one whose policy takes masks or has a memory is named by that, whatever its own class."""
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

    if isinstance(model.policy, MaskableActorCriticPolicy):
        return MASKABLE_ALGOS[0]
    return RECURRENT_ALGOS[0] if hasattr(model.policy, "lstm_actor") else type(model).__name__.lower()


def _own_parts(policy: Any) -> list[str]:
    """Names of the parts of a policy whose forward pass is not ours: class, extractor, activation."""
    activation, extractor = getattr(policy, "activation_fn", None), _extractor(policy)
    own = [] if _dotted(policy) in POLICY_ALGOS else [type(policy).__name__]
    own += [] if _dotted(extractor) in EXTRACTORS else [type(extractor).__name__]
    if activation is not None and not is_known_activation(_named(activation)):
        own.append(str(getattr(activation, "__name__", type(activation).__name__)))  # a partial has no name
    return own


def _named(activation: Any) -> str:
    """The dotted name of an activation's class; "" for what is no class."""
    return f"{activation.__module__}.{activation.__qualname__}" if isinstance(activation, type) else ""


def _dotted(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _extractor(policy: Any) -> Any:
    parts = [getattr(policy, part, None) for part in ("actor", "q_net", "quantile_net")]
    owner = next((part for part in parts if part is not None), policy)
    return getattr(owner, "features_extractor", None)


def _spec(model: Any) -> ModelSpec:
    dotted = _dotted(model.policy)
    name = f"live {type(model).__name__}"
    algo = type(model).__name__.lower()
    return ModelSpec(
        name=name,
        algo=algo if algo in POLICY_ALGOS[dotted] else POLICY_ALGOS[dotted][0],
        policy=dotted,
        observation_space=_copied(model.observation_space),
        action_space=_copied(model.action_space),
        activation=activation_name(_named(model.policy.activation_fn), name),
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
