"""From a training configuration to the arguments of a stable-baselines3 class. Nothing is evaluated or imported.

Names are checked against the class's own signature, so that a typing mistake is an error and not a silent default.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from policykd.spine.errors import InputError

_CONTRIB = {
    **{name: name.upper() for name in ("trpo", "qrdqn", "tqc", "ars")},
    "maskable_ppo": "MaskablePPO",
    "recurrent_ppo": "RecurrentPPO",
}
_ELSEWHERE = {
    "policy": "it follows from the observation space",
    "env": "set env.id",
    "seed": "set seed beside hyperparameters",
    "device": "set device beside hyperparameters",
    "policy_kwargs": "set policy_kwargs beside hyperparameters",
    "n_envs": "set n_envs beside hyperparameters",
    "verbose": "progress is shown by policykd",
    "tensorboard_log": "policykd writes no log of a teacher's training",
}
_CLASSES = ("rollout_buffer_class", "replay_buffer_class")
_POLICY_CLASSES = ("features_extractor_class", "optimizer_class", "expln_class")
_ANNOTATIONS: dict[type, tuple[str, ...]] = {  # what must stand in a parameter's annotation for a value of this type
    type(None): ("None",),
    bool: ("bool",),
    int: ("int", "float"),
    float: ("float",),
    str: ("str",),
    list: ("tuple",),
    dict: ("dict",),
}
_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list",
    "dict": "a mapping",
    "None": "null",
    "Callable": "{linear: number}",
    "ActionNoise": "{normal: number}",
}
_NET_ARCH_KEYS = {
    "vf": frozenset({"ppo", "a2c", "trpo", "maskable_ppo", "recurrent_ppo"}),
    "qf": frozenset({"sac", "tqc", "td3", "ddpg"}),
}
_POLICY_POSITIONAL = ("self", "observation_space", "action_space", "lr_schedule", "use_sde")


def algorithm_class(algo: str) -> Any:
    """The class of stable-baselines3 or sb3-contrib; InputError where sb3-contrib is needed and missing."""
    if algo not in _CONTRIB:
        import stable_baselines3

        return getattr(stable_baselines3, algo.upper())
    try:
        import sb3_contrib
    except ModuleNotFoundError as error:
        raise InputError(f"algo {algo} needs sb3-contrib, which is not installed: pip install sb3-contrib") from error
    return getattr(sb3_contrib, _CONTRIB[algo])


def policy_name(algo: str, observation_space: Any) -> str:
    """The policy alias of stable-baselines3 for these observations: MlpPolicy, CnnLstmPolicy and so on."""
    from gymnasium import spaces
    from stable_baselines3.common.preprocessing import is_image_space

    kind = "Cnn" if is_image_space(observation_space) else "Mlp"
    if isinstance(observation_space, spaces.Dict):
        kind = "MultiInput"
    name = f"{kind}LstmPolicy" if algo == "recurrent_ppo" else f"{kind}Policy"
    if kind == "MultiInput" and name not in algorithm_class(algo).policy_aliases:
        raise InputError(
            f"env: observations are a Dict, but {algo} needs one array: add FlattenObservation to env.wrappers"
        )
    return name


def algorithm_kwargs(algo: str, hyperparameters: dict[str, Any], action_space: Any) -> dict[str, Any]:
    """`hyperparameters` as keyword arguments of the algorithm's class: names checked, schedules and noise built."""
    cls = algorithm_class(algo)
    parameters = inspect.signature(cls.__init__).parameters
    known = [name for name in parameters if name not in ("self", "_init_setup_model", *_ELSEWHERE, *_CLASSES)]
    return {
        name: _value(f"hyperparameters.{name}", value, str(parameters[name].annotation), action_space)
        for name, value in hyperparameters.items()
        if _checked(f"hyperparameters.{name}", name, known, algo)
    }


def policy_kwargs(algo: str, policy: str, given: dict[str, Any]) -> dict[str, Any]:
    """`given` as keyword arguments of the algorithm's policy: names checked, the activation a class of torch."""
    aliases = algorithm_class(algo).policy_aliases
    if policy not in aliases:
        raise InputError(f"algo {algo} has no {policy} for image observations; use another algo")
    parameters = inspect.signature(aliases[policy].__init__).parameters
    known = [name for name in parameters if name not in (*_POLICY_POSITIONAL, *_POLICY_CLASSES)]
    for name in given:
        _checked(f"policy_kwargs.{name}", name, known, algo)
    result = dict(given)
    if "activation_fn" in result:
        result["activation_fn"] = _activation(result["activation_fn"])
    if "net_arch" in result:
        _check_net_arch(algo, result["net_arch"])
    return result


def _checked(path: str, name: str, known: Iterable[str], algo: str) -> bool:
    if name in known:
        return True
    if name in _ELSEWHERE:
        raise InputError(f"{path}: not given here; {_ELSEWHERE[name]}")
    if name in (*_CLASSES, *_POLICY_CLASSES):
        raise InputError(f"{path}: a configuration cannot name a class: remove it")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    raise InputError(f"{path}: {algo} has no such parameter; {hint}")


def _value(path: str, value: Any, annotation: str, action_space: Any) -> Any:
    """`value` as the parameter takes it: a schedule or noise built from its mapping, a pair from a list."""
    if isinstance(value, dict) and "Callable" in annotation:
        return _schedule(path, value)
    if isinstance(value, dict) and "ActionNoise" in annotation:
        return _noise(path, value, action_space)
    if not any(word in annotation for word in _ANNOTATIONS.get(type(value), ())):
        expected = " or ".join(text for word, text in _EXPECTED.items() if word in annotation)
        found = "is text; write" if isinstance(value, str) else "does not fit; expected"
        raise InputError(f"{path}: {value!r} {found} {expected}")
    return tuple(value) if isinstance(value, list) else value


def _schedule(path: str, value: dict[str, Any]) -> Any:
    from stable_baselines3.common.utils import LinearSchedule

    return LinearSchedule(_only_number(path, value, "linear"), 0.0, 1.0)


def _noise(path: str, value: dict[str, Any], action_space: Any) -> Any:
    """Gaussian exploration; its standard deviation counts in the policy's own range, -1 to 1."""
    import numpy as np
    from stable_baselines3.common.noise import NormalActionNoise

    sigma = _only_number(path, value, "normal")
    shape = action_space.shape
    return NormalActionNoise(np.zeros(shape), np.full(shape, sigma))


def _only_number(path: str, value: dict[str, Any], key: str) -> float:
    number = value.get(key)
    if set(value) != {key} or isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InputError(f"{path}: {value!r} is not known; expected {{{key}: number}}")
    return float(number)


def _activation(name: Any) -> Any:
    from torch import nn

    choices: dict[str, Any] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
    if name not in choices:
        raise InputError(f"policy_kwargs.activation_fn: {name!r} is not known; expected one of {', '.join(choices)}")
    return choices[name]


def _check_net_arch(algo: str, net_arch: Any) -> None:
    critic = next((key for key, algos in _NET_ARCH_KEYS.items() if algo in algos), None)
    shapes = [net_arch]
    if critic is not None and isinstance(net_arch, dict) and net_arch.keys() == {"pi", critic}:
        shapes = list(net_arch.values())
    for part in shapes:
        if not isinstance(part, list) or not all(type(width) is int and 1 <= width <= 4096 for width in part):
            both = f", or {{pi: [64, 64], {critic}: [64, 64]}}" if critic else ""
            raise InputError(
                f"policy_kwargs.net_arch: {net_arch!r} is not known; expected widths from 1 to 4096 as [64, 64]{both}"
            )
