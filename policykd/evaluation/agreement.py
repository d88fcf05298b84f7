"""Agreement: how often two policies choose the same mode action on the same states."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from policykd.loss.acting import params_on
from policykd.loss.masking import masked_like
from policykd.spine.actions import ActionMap
from policykd.spine.types import Array, Policy

TOLERANCE = 0.05  # of the action range, per dimension, for continuous actions


def agreement(policy: Policy, teacher_params: Tensor, student_params: Tensor) -> float:
    """Share of states with the same mode action, both as environment actions.

    teacher_params, student_params: [B, P]. Discrete, binary: all equal. Box: within 5 % of the action range in every
    dimension (of 2 where the range is infinite). Where the teacher's labels are masked, the student is masked too.
    """
    mode, action_map = policy.distribution.mode, policy.action_map
    ours = action_map(mode(masked_like(student_params, teacher_params)).cpu().numpy())
    theirs = action_map(mode(teacher_params).cpu().numpy())
    return float(same_action(action_map, ours, theirs).mean())


def same_action(action_map: ActionMap, a: Array, b: Array) -> Array:
    """[B] booleans: whether the environment actions a and b [B, ...] count as the same."""
    if action_map.kind in ("clip", "unscale"):
        width = np.asarray(action_map.high) - np.asarray(action_map.low)
        room = TOLERANCE * np.where(np.isfinite(width), width, 2.0)
        gap = np.abs(np.asarray(a, np.float64) - b).reshape(len(a), -1)
        return np.asarray((gap <= room).all(1))
    return np.asarray((a == b).reshape(len(a), -1).all(1))


def agreement_on(teacher: Policy, student: Policy, observations: Array, masks: Array | None = None) -> float:
    """Agreement on raw observations [B, *O] that the student visited, with the actions allowed there [B, n]."""
    return float(same_on(teacher, student, observations, masks).mean())


def same_on(teacher: Policy, student: Policy, observations: Array, masks: Array | None = None) -> Array:
    """[B] booleans: where both choose the same mode action, on raw observations [B, *O] under `masks` [B, n]."""
    pair = [
        np.concatenate([mode_actions(policy, params) for params in params_on(policy, observations, masks)])
        for policy in (teacher, student)
    ]
    return same_action(teacher.action_map, *pair)


def mode_actions(policy: Policy, params: Tensor) -> Array:
    """The environment actions [B, ...] that the policy takes by the mode of its parameters [B, P]."""
    return policy.action_map(policy.distribution.mode(params).cpu().numpy())
