"""From observations to environment actions, for teachers and students alike: batching, the distribution, the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss.masking import masked_params
from policykd.spine.errors import InputError
from policykd.spine.masks import as_mask, branches
from policykd.spine.types import Policy

if TYPE_CHECKING:
    from gymnasium import Space

Array = NDArray[Any]


def predict(
    policy: Policy,
    observation: Array,
    deterministic: bool,
    generator: torch.Generator | None = None,
    action_masks: Array | None = None,
) -> Array:
    """Environment actions for one observation [*shape] or a batch [B, *shape]: [*action shape] or [B, *action shape].

    `deterministic` takes the mode, else one sample is drawn with `generator`. `action_masks`, [n] or [B, n], forbids
    actions. InputError for a wrong shape, NumericsError for a mask that allows nothing.
    """
    batch, single = as_batch(observation, policy.observation_space)
    mask = None
    if action_masks is not None:
        mask = as_mask(action_masks, (len(batch),), branches(policy.distribution.to_json()), "predict")
    params = masked_params(policy, torch.from_numpy(batch).to(policy.device), mask, "predict")
    actions = act(policy, params, deterministic=deterministic, generator=generator)
    return np.asarray(actions[0]) if single else actions


def act(policy: Policy, params: Tensor, deterministic: bool, generator: torch.Generator | None = None) -> Array:
    """Environment actions [B, *action shape] for distribution parameters [B, P]; no gradient is recorded."""
    with torch.no_grad():
        if deterministic:
            actions = policy.distribution.mode(params)
        else:
            actions = policy.distribution.sample(params, generator)
    return policy.action_map(actions.cpu().numpy())


def as_batch(observation: Array, space: Space[Any]) -> tuple[Array, bool]:
    """The observation as a batch [B, *shape] that torch can take, and whether it was a single one."""
    shape = space.shape
    if shape is None or isinstance(observation, dict | tuple):
        raise InputError(
            f"observation is a {type(observation).__name__}, expected an array: pass the observation alone, not "
            "reset()'s (observation, info); Dict and Tuple observations are not supported yet"
        )
    array = np.asarray(observation)
    if array.shape == shape:
        single = True
    elif array.ndim == len(shape) + 1 and array.shape[1:] == shape:
        single = False
    else:
        raise InputError(f"observation has shape {array.shape}, expected {shape} or a batch (B, {str(shape)[1:]}")
    batch = array[None] if single else array
    if batch.dtype.kind == "u" and batch.dtype.itemsize > 1:
        batch = batch.astype(np.int64)  # torch's wider unsigned integers support few operations
    batch = batch if batch.dtype.isnative else batch.astype(batch.dtype.newbyteorder("="))
    return np.require(batch, requirements=("C", "W")), single
