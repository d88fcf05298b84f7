"""Which actions an environment allows now: `action_masks()`, as sb3-contrib's MaskablePPO asks for it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from policykd.rollout.envs import EnvSpec, make_env
from policykd.spine.errors import InputError
from policykd.spine.types import Policy

if TYPE_CHECKING:
    from gymnasium import Space

ACTION_MASKS = "action_masks"


def mask_branches(space: Space[Any]) -> tuple[int, ...]:
    """The sizes of the choices that a mask for these actions lists; InputError for a space that has no masks."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.ravel())
    if isinstance(space, spaces.MultiBinary):
        return (2,) * math.prod(space.shape)
    raise InputError(
        f"actions of {type(space).__name__} cannot be masked: expected Discrete, MultiDiscrete or MultiBinary"
    )


def with_masks(policy: Policy, name: str, spec: EnvSpec) -> EnvSpec:
    """The environment with its masks where the policy needs them: single environments then, since a vector class has
    none to give. InputError where the environment has no `action_masks`."""
    if not getattr(policy, "masked", False):
        return spec
    if spec.backend == "envpool":
        raise InputError(
            f"env.backend envpool: {spec.id} has no action masks there, which {name} needs; use sync or async"
        )
    must_have_masks(spec, name)
    return replace(spec, backend="async" if spec.backend == "async" else "sync", masked=True)


def must_have_masks(spec: EnvSpec, name: str) -> None:
    """InputError where the environment has no `action_masks`, which `name` needs."""
    env = make_env(spec)
    try:
        if not env.has_wrapper_attr(ACTION_MASKS):
            raise InputError(
                f"env {spec.id}: has no {ACTION_MASKS}(), which {name} needs to know what is allowed: choose the "
                "environment it was trained in, or add a wrapper with that method (sb3-contrib's ActionMasker)"
            )
    finally:
        env.close()
