"""A stable-baselines3 zip read without its loader: plain JSON fields, and weights as data. Nothing in it is run."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from pathlib import Path
from typing import Any

from policykd.spine.errors import InputError, brief
from policykd.teachers.jsondata import read_json
from policykd.teachers.modelspec import (
    ACTOR_CRITIC_ALGOS,
    EXTRACTORS,
    MASKABLE_ALGOS,
    POLICY_ALGOS,
    RECURRENT_ALGOS,
    ModelSpec,
    UnsupportedPolicy,
)
from policykd.teachers.networks import ACTIVATIONS
from policykd.teachers.pickledata import MAX_FIELD_OPCODES, DecodeError, Symbol, decode
from policykd.teachers.sb3spaces import read_space
from policykd.teachers.weights import read_state_dict
from policykd.teachers.ziptools import Archive

MAX_FILE = 2**28
_MAX_DATA = 16 * 2**20  # it has the last observations of every environment, which are text
_MAX_VALUES = 200_000  # in it; a model has about 300
_MAX_WEIGHTS = 256 * 2**20
_MAX_TEXT = 64 * 2**10
_REMEDY = "expected a zip that model.save() of stable-baselines3 wrote"
_LIVE = "pass the live model in Python, or --trust if you made the file (it runs what the file holds)"
_TANH = (ACTOR_CRITIC_ALGOS, MASKABLE_ALGOS, RECURRENT_ALGOS)


def read_zip(path: Path, *, algo: str | None = None) -> tuple[ModelSpec, str]:
    """The facts and weights of a model, and the sha256 of its file.

    `algo` settles what the file leaves open (an RL-Zoo folder names it). InputError, in one line, for a file that is
    missing, truncated, no SB3 model, or of a kind that is not supported.
    """
    name = str(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(f"{name}: more than {MAX_FILE} bytes; {_REMEDY}")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); {_REMEDY}") from error
    return read_zip_bytes(raw, name, algo=algo), hashlib.sha256(raw).hexdigest()


def read_zip_bytes(raw: bytes, name: str, *, algo: str | None = None) -> ModelSpec:
    """As `read_zip`, for the bytes of a file that messages call `name`."""
    archive = Archive(raw, name, _REMEDY)
    missing = [member for member in ("data", "policy.pth") if member not in archive.members]
    if missing:
        raise InputError(f"{name}: a zip without {' and '.join(missing)}: no stable-baselines3 model; {_REMEDY}")
    data = _json(archive.read("data", _MAX_DATA), name)
    policy = _policy(data, name)
    kwargs = data.get("policy_kwargs")
    options = _options(kwargs if isinstance(kwargs, dict) else {}, name)
    weights = read_state_dict(archive.read("policy.pth", _MAX_WEIGHTS), f"{name}: policy.pth")
    return ModelSpec(
        name=name,
        algo=_algo(data, policy, algo),
        policy=policy,
        observation_space=read_space(data.get("observation_space"), "observation_space", name),
        action_space=read_space(data.get("action_space"), "action_space", name),
        activation=options.pop("activation", _default_activation(policy)),
        weights=weights,
        options=options,
        versions=_versions(archive),
    )


def _json(raw: bytes, name: str) -> dict[str, Any]:
    try:
        data = read_json(raw, _MAX_VALUES)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: member 'data' is no readable JSON ({brief(error, 80)}); {_REMEDY}") from error
    if not isinstance(data, dict):
        raise InputError(f"{name}: member 'data' is a {type(data).__name__}, expected an object; {_REMEDY}")
    return data


def _policy(data: dict[str, Any], name: str) -> str:
    """The dotted name of the policy class, if it is one that is understood."""
    entry = data.get("policy_class")
    if not isinstance(entry, dict):
        raise InputError(f"{name}: no policy_class in 'data': no stable-baselines3 model; {_REMEDY}")
    found = _printed_class(entry) or _serialised_class(entry)
    if found not in POLICY_ALGOS:
        known = ", ".join(sorted({policy.rpartition(".")[2] for policy in POLICY_ALGOS}))
        raise UnsupportedPolicy(
            f"{name}: policy class {found[:120]!r} is not supported: expected one of {known}; {_LIVE}"
        )
    return found


def _printed_class(entry: dict[str, Any]) -> str:
    """From `__module__` and `<function NAME.__init__ at 0x...>`; empty where these are missing."""
    module, init = entry.get("__module__"), entry.get("__init__")
    match = re.match(r"<function (\w+)\.__init__ at ", init) if isinstance(init, str) else None
    return f"{module}.{match[1]}" if match and isinstance(module, str) else ""


def _serialised_class(entry: dict[str, Any]) -> str:
    """From the serialised reference, decoded as data; else the module alone, for the message."""
    try:
        tree = decode(base64.b64decode(entry[":serialized:"], validate=True), max_opcodes=MAX_FIELD_OPCODES)
    except (KeyError, TypeError, ValueError, binascii.Error, DecodeError):
        tree = None
    return str(tree) if isinstance(tree, Symbol) else f"a class of {entry.get('__module__')}"


def _options(kwargs: dict[str, Any], name: str) -> dict[str, Any]:
    """What the network depends on, out of the printed policy_kwargs."""
    extractor = kwargs.get("features_extractor_class")
    if extractor is not None and _class_name(extractor) not in EXTRACTORS:
        known = ", ".join(known.rpartition(".")[2] for known in EXTRACTORS)
        raise UnsupportedPolicy(
            f"{name}: features extractor {_class_name(extractor)[:120]!r} is not supported: expected one of {known}; "
            f"{_LIVE}"
        )
    options: dict[str, Any] = {}
    if kwargs.get("activation_fn") is not None:
        options["activation"] = activation_name(_class_name(kwargs["activation_fn"]), name)
    for key in ("squash_output", "use_expln", "normalize_images"):
        if key in kwargs:
            options[key] = _flag(kwargs[key], key, name)
    for key in ("clip_mean", "batch_norm_eps"):
        if key in kwargs:
            options[key] = _number(kwargs[key], key, name)
    return options


def _flag(value: Any, key: str, name: str) -> bool:
    """A bool, also one of numpy's, which is stored as text."""
    if str(value) not in ("True", "False"):
        raise InputError(f"{name}: policy_kwargs.{key} is {str(value)[:40]!r}, expected true or false; {_REMEDY}")
    return str(value) == "True"


def _number(value: Any, key: str, name: str) -> float:
    """A finite number, also one of numpy's, which is stored as text."""
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name}: policy_kwargs.{key} is {str(value)[:40]!r}, expected a number; {_REMEDY}")
    return number


def activation_name(dotted: str, name: str) -> str:
    """`tanh` for `torch.nn.modules.activation.Tanh`; UnsupportedPolicy for one that is not known."""
    if not is_known_activation(dotted):
        known = ", ".join(ACTIVATIONS)
        raise UnsupportedPolicy(
            f"{name}: activation {dotted[:120]!r} is not supported: expected one of torch.nn's {known}; {_LIVE}"
        )
    return dotted.rpartition(".")[2].lower()


def is_known_activation(dotted: str) -> bool:
    """Whether it is one of torch.nn whose function is ours."""
    return dotted.startswith("torch.nn.") and dotted.rpartition(".")[2].lower() in ACTIVATIONS


def _class_name(printed: Any) -> str:
    return str(printed).removeprefix("<class '").removesuffix("'>")


def _default_activation(policy: str) -> str:
    return "tanh" if POLICY_ALGOS[policy] in _TANH else "relu"


def _algo(data: dict[str, Any], policy: str, hint: str | None) -> str:
    """The algorithm: the hint where it fits the policy class, else told from the attributes that each one saves."""
    candidates = POLICY_ALGOS[policy]
    if hint in candidates:
        return str(hint)
    if candidates == ACTOR_CRITIC_ALGOS:
        if "cg_max_steps" in data:
            return "trpo"
        return "ppo" if "clip_range" in data else "a2c"
    if candidates == ("td3", "ddpg"):
        kwargs = data.get("policy_kwargs")
        single = isinstance(kwargs, dict) and kwargs.get("n_critics") == 1
        return "ddpg" if single and data.get("policy_delay") == 1 else "td3"
    return candidates[0]


def _versions(archive: Archive) -> dict[str, str]:
    """What the file says of the versions that wrote it."""
    versions: dict[str, str] = {}
    if "_stable_baselines3_version" in archive.members:
        text = archive.read("_stable_baselines3_version", _MAX_TEXT).decode("utf-8", "replace")
        versions["stable_baselines3"] = _printable(text)
    if "system_info.txt" in archive.members:
        for line in archive.read("system_info.txt", _MAX_TEXT).decode("utf-8", "replace").splitlines()[:20]:
            key, colon, value = line.removeprefix("- ").partition(": ")
            if colon:
                versions.setdefault(_printable(key).lower().replace("-", "_").replace(" ", "_"), _printable(value))
    return versions


def _printable(text: str) -> str:
    return "".join(char for char in text.strip() if char.isprintable())[:120]
