"""Whether a policy fits an environment."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from policykd.rollout.envs import EnvSpec, make_env
from policykd.rollout.masks import with_masks
from policykd.spine.errors import InputError, brief
from policykd.spine.packing import packing_of
from policykd.spine.spaces import describe_space, ordered_like, same_shape
from policykd.spine.types import Policy
from policykd.spine.views import Views
from policykd.teachers.base import Teacher

if TYPE_CHECKING:
    from gymnasium import Space

P = TypeVar("P", bound=Policy)


def fit(policy: P, name: str, spec: EnvSpec) -> tuple[P, EnvSpec]:
    """The policy as it acts in this environment (a teacher of images turns their channels where it must), and the
    environment as this policy needs it (with action masks, with the entries of a Dict in the policy's order, or as it
    is); InputError where they do not fit."""
    policy, spec = _checked(policy, name, spec)
    return policy, with_masks(policy, name, spec)


def fit_views(teacher: Teacher, name: str, spec: EnvSpec) -> tuple[Teacher, EnvSpec]:
    """As `fit`, for the teacher of a student that sees the environment through wrappers of its own, where
    `spec.student_wrappers` names some: the teacher then acts in the environment that shows both views."""
    teacher, own = fit(teacher, name, replace(spec, student_wrappers=()))
    if not spec.student_wrappers:
        return teacher, own
    env = make_env(replace(own, student_wrappers=spec.student_wrappers))
    space = env.observation_space
    env.close()
    assert isinstance(space, Views)
    teacher = teacher.fitted(space)
    ordered = ordered_like(space, teacher.observation_space)
    return teacher, replace(own, student_wrappers=spec.student_wrappers, packing=packing_of(ordered))


def _checked(policy: P, name: str, spec: EnvSpec) -> tuple[P, EnvSpec]:
    """InputError unless observation and action spaces have the policy's kind and size, and actions its bounds.

    Bounds of observations differ between versions of one environment, and are no reason to refuse.
    """
    env = make_env(spec)
    try:
        adapt = getattr(policy, "fitted", None)
        policy = policy if adapt is None else adapt(env.observation_space)
        pairs = (
            ("observation", policy.observation_space, env.observation_space),
            ("action", policy.action_space, env.action_space),
        )
        for what, expected, found in pairs:
            if not same_shape(expected, found):
                raise InputError(
                    f"env {spec.id}: its {what} space is {describe_space(found)}, {name} was made for "
                    f"{describe_space(expected)}; choose its environment with --env, or add env.wrappers"
                )
        low, high = (
            [np.asarray(getattr(space, bound, 0)) for space in (policy.action_space, env.action_space)]
            for bound in ("low", "high")
        )
        if not (np.allclose(low[0], low[1]) and np.allclose(high[0], high[1])):
            raise InputError(
                f"env {spec.id}: its action bounds {brief(low[1].tolist())} to {brief(high[1].tolist())} are not those "
                f"of {name}, {brief(low[0].tolist())} to {brief(high[0].tolist())}; add RescaleAction to env.wrappers"
            )
        return policy, _ordered(policy, name, spec, env.observation_space)
    finally:
        env.close()


def _ordered(policy: Policy, name: str, spec: EnvSpec, space: Space[Any]) -> EnvSpec:
    """The environment whose observations are packed in the policy's order; InputError where it is packed in that of
    another policy already."""
    packing = packing_of(ordered_like(space, policy.observation_space))
    if packing.plain:
        return spec
    if spec.packing is not None and spec.packing != packing:
        raise InputError(
            f"env {spec.id}: {name} takes the entries of its observations in another order than the other policy: "
            "judge them one after the other"
        )
    return replace(spec, packing=packing)
