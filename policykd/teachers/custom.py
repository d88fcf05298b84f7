"""A torch module, or any function, as a teacher: the caller states its spaces and what its outputs mean."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from policykd.loss.distributions import Distribution
from policykd.spine.errors import InputError, NumericsError
from policykd.spine.types import Footprint, TeacherInfo
from policykd.teachers.base import Interface, Kind, Teacher
from policykd.teachers.networks import ACTIVATIONS, Fingerprint
from policykd.teachers.probes import probes_of
from policykd.teachers.stated import Meaning, Stated, meaning_of

if TYPE_CHECKING:
    from gymnasium import Space

_PROBES = 8
_UNCOUNTED = "its parameters cannot be counted, since it is a function and no torch.nn.Module: compression is not known"


class CustomOptions(TypedDict, total=False):
    """`env_id`, `env_kwargs`: the environment it was trained in. `name`: how messages and results call it. `unscale`:
    its actions lie in [-1, 1] and are stretched to the bounds of the Box (a squashed gaussian's always are)."""

    env_id: str | None
    env_kwargs: Mapping[str, Any]
    name: str
    unscale: bool


def make_custom_teacher(
    forward: Callable[[Tensor], Tensor],
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    distribution: Distribution | str | None = None,
    kind: Kind = "policy",
    **options: Unpack[CustomOptions],
) -> Teacher:
    """A teacher from a torch.nn.Module or a function, for `distill(teacher=...)` and `load_teacher`.

    `forward` maps raw observations, float32 [B, *observation_space.shape], to float tensors:
      kind "policy"         parameters [B, P] of `distribution`: logits, or mean and log_std side by side (of a squashed
                            gaussian before the tanh)
      kind "value"          values [B, n] of Discrete actions
      kind "deterministic"  actions [B, A] of a Box, to which a fixed spread is added
    `distribution`: one of policykd.loss.distributions, or categorical, multi_categorical, bernoulli, gaussian,
    squashed_gaussian; None takes the usual one of the action space (gaussian for a Box).

    A module is copied, set to evaluation, and its parameters on the way to the action are counted; the original does
    not change. A function is called as it is, always with tensors on the CPU; it must not change, and its parameters
    are not counted. InputError, in one line, for spaces, shapes and parameters that do not fit; NumericsError for NaN.
    """
    name = str(options.get("name") or getattr(forward, "__name__", type(forward).__name__))
    if not callable(forward):
        raise InputError(f"forward is a {type(forward).__name__}, expected a torch.nn.Module or a function")
    if getattr(observation_space, "shape", None) is None:
        kind_of = type(observation_space).__name__
        raise InputError(f"{name}: observation_space is a {kind_of}, expected a Box or another space with a shape")
    meaning = meaning_of(action_space, distribution, kind, options.get("unscale"), name)
    probes = torch.from_numpy(_probes(observation_space))
    if isinstance(forward, nn.Module):
        own = _copied(forward, name)
        cost = _cost(own.module, probes.to(own.device), meaning, name)
        stated = Stated(own, meaning, name, _module_identity(own.module))
        _probed(stated, probes)
    else:
        cost = _Cost()
        stated = Stated(_Function(forward, torch.device("cpu")), meaning, name, "")
        stated = replace(stated, identity=_answers(name, _probed(stated, probes)))
    info = TeacherInfo(
        source=f"live {name}",
        sha256="",
        algo="custom",
        env_id=options.get("env_id"),
        trained_on=options.get("env_id"),
        layers=cost.layers,
        activation=cost.activation,
        normalised=False,
        gsde=False,
        footprint=Footprint(cost.params, 0, cost.macs),
        env_kwargs=dict(options.get("env_kwargs", {})),
        versions={"torch": str(torch.__version__)},
        notes=() if isinstance(forward, nn.Module) else (f"{name}: {_UNCOUNTED}",),
    )
    teacher = Teacher(stated, Interface(observation_space, action_space), info)
    return teacher.with_info(sha256=teacher.fingerprint)


@dataclass(frozen=True)
class _Module:
    """A copy of the user's module, which nobody else can change."""

    module: nn.Module
    device: torch.device

    def __call__(self, observation: Tensor) -> Any:
        with torch.no_grad():
            return self.module(observation)

    def to(self, device: torch.device) -> _Module:
        return _Module(copy.deepcopy(self.module).to(device), device)


@dataclass(frozen=True)
class _Function:
    """The user's function, which stays where it is: it is given tensors on the CPU, and its answers are moved."""

    function: Callable[[Tensor], Tensor]
    device: torch.device

    def __call__(self, observation: Tensor) -> Any:
        with torch.no_grad():
            outputs: Any = self.function(observation.cpu())
        return outputs.to(self.device) if isinstance(outputs, Tensor) else outputs

    def to(self, device: torch.device) -> _Function:
        return replace(self, device=device)


@dataclass(frozen=True)
class _Cost:
    """What is known of a module's size; nothing is known of a function's."""

    params: int = 0
    macs: int = 0
    layers: tuple[tuple[int, int], ...] = ()
    activation: str = ""


def _copied(module: nn.Module, name: str) -> _Module:
    try:
        own = copy.deepcopy(module).eval().requires_grad_(False)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(f"{name}: cannot be copied ({_one_line(error)}); give a module that copy.deepcopy takes, or a "
                         "function that calls it") from error  # fmt: skip
    tensor = next(iter(own.parameters()), None)
    return _Module(own, torch.device("cpu") if tensor is None else tensor.device)


def _probes(space: Space[Any]) -> np.ndarray:
    """A few observations [8, *shape], float32, always the same for one space."""
    return np.stack([np.asarray(probe, np.float32) for probe in probes_of(space, _PROBES)])


def _probed(stated: Stated, probes: Tensor) -> Tensor:
    """Its parameters [8, P]; one observation must give the shape of one."""
    try:
        stated([probes[:1].to(stated.device)])
        return stated([probes.to(stated.device)])
    except (InputError, NumericsError):
        raise
    except Exception as error:
        shape = tuple(probes.shape)
        raise InputError(
            f"{stated.name}: forward raised {type(error).__name__} for observations {shape}: {_one_line(error)}; it "
            "must take raw observations of the observation space"
        ) from error


def _module_identity(module: nn.Module) -> str:
    digest = Fingerprint()
    for part, child in module.named_modules():
        digest.add_text(f"{part} {type(child).__name__}")
    for key, value in module.state_dict().items():
        digest.add_text(key)
        digest.add_tensor(value)
    return digest.hexdigest()


def _answers(name: str, outputs: Tensor) -> str:
    """What tells one function from another: its answers to the probes, to 8 bits, so that the last bits of another
    number of threads do not matter."""
    return Fingerprint().add_text(name).add_tensor(outputs.bfloat16().float()).hexdigest()


def _cost(module: nn.Module, probes: Tensor, meaning: Meaning, name: str) -> _Cost:
    """Parameters that the means depend on (all, where gradients do not say), and the layers that were run."""
    sizes: dict[nn.Module, tuple[int, int, int]] = {}  # (inputs, outputs, multiply-accumulates for one observation)

    def measure(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and isinstance(layer, nn.Linear):
            width = int(layer.in_features)  # may be an integer of numpy
            sizes[layer] = width, int(layer.out_features), output[:1].numel() * width
        elif isinstance(output, Tensor) and isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            per_output = layer.weight[0].numel()
            sizes[layer] = int(layer.in_channels), int(layer.out_channels), output[:1].numel() * per_output

    parameters = {key: value for key, value in module.named_parameters() if value.is_floating_point()}
    hooks = [layer.register_forward_hook(measure) for layer in module.modules()]
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            outputs = module(probes)
            used = _used(outputs[:, : meaning.distribution.n_means], parameters)
    except Exception as error:
        raise InputError(
            f"{name}: forward raised {type(error).__name__} for observations {tuple(probes.shape)}: {_one_line(error)};"
            " it must give one tensor of parameters for raw observations"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        module.requires_grad_(False)
    ids = {id(value) for value in used}
    layers = [size for layer, size in sizes.items() if id(getattr(layer, "weight", None)) in ids]
    activations = [type(child).__name__.lower() for child in module.modules()]
    activation = next((text for text in activations if text in ACTIVATIONS), "")
    return _Cost(sum(value.numel() for value in used), sum(size[2] for size in layers),
                 tuple(size[:2] for size in layers), activation)  # fmt: skip


def _used(means: Tensor, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """Those with a gradient. log_std beside the means has one of zeros; unequal weights, for softmax sums to one."""
    if not means.requires_grad or not parameters:
        return list(parameters.values())
    weighted = (means * torch.linspace(1.0, 2.0, means.shape[1], device=means.device)).sum()
    gradients: Any = torch.autograd.grad(weighted, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.values(), gradients, strict=True)
    return [value for value, gradient in pairs if gradient is not None and gradient.any()]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
