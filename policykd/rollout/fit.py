"""Whether a policy fits an environment."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from policykd.rollout.envs import EnvSpec, make_env
from policykd.rollout.masks import with_masks
from policykd.spine.errors import InputError, brief
from policykd.spine.spaces import describe_space, same_shape
from policykd.spine.types import Policy

P = TypeVar("P", bound=Policy)


def fit(policy: P, name: str, spec: EnvSpec) -> tuple[P, EnvSpec]:
    """The policy as it acts in this environment (a teacher of images turns their channels where it must), and the
    environment as this policy needs it (with action masks, or as it is); InputError where they do not fit."""
    policy = _checked(policy, name, spec)
    return policy, with_masks(policy, name, spec)


def _checked(policy: P, name: str, spec: EnvSpec) -> P:
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
        return policy
    finally:
        env.close()
