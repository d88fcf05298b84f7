"""From observations to environment actions, for teachers and students alike: batching, the distribution, the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss.masking import apply_mask, masked_params
from policykd.spine.errors import InputError
from policykd.spine.masks import as_mask, branches
from policykd.spine.packing import Packing, packed_batch
from policykd.spine.types import Policy, RecurrentPolicy, State

Array = NDArray[Any]
_ROWS = 16_384  # of observations at once, where they are small


def predict(
    policy: Policy,
    observation: Any,
    deterministic: bool,
    generator: torch.Generator | None = None,
    action_masks: Array | None = None,
) -> Array:
    """Environment actions for one observation or a batch: [*action shape] or [B, *action shape].

    An observation is an array [*shape], or a dict or tuple of them where the space is one; a batch has [B, ...] in
    front of every shape. `deterministic` takes the mode, else one sample is drawn with `generator`. `action_masks`,
    [n] or [B, n], forbids actions. InputError for a wrong shape, NumericsError for a mask that allows nothing.
    """
    batch, single = as_batch(observation, policy.packing)
    mask = None
    if action_masks is not None:
        mask = as_mask(action_masks, (len(batch),), branches(policy.distribution.to_json()), "predict")
    params = masked_params(policy, torch.from_numpy(batch).to(policy.device), mask, "predict")
    actions = act(policy, params, deterministic=deterministic, generator=generator)
    return np.asarray(actions[0]) if single else actions


def predict_recurrent(
    policy: RecurrentPolicy,
    observation: Any,
    memory: Memory,
    deterministic: bool,
    generator: torch.Generator | None = None,
) -> tuple[Array, tuple[Array, ...]]:
    """As `predict` for a policy with a memory: environment actions and the next state, [layers, B, H] each.

    InputError for shapes that do not fit, NumericsError for a mask that allows nothing.
    """
    batch, single = as_batch(observation, policy.packing)
    n = len(batch)
    state = policy.initial_state(n) if memory.state is None else _given(policy, memory.state, n)
    begins = memory.episode_start
    start = np.zeros(n, np.bool_) if begins is None else np.asarray(begins, np.bool_).reshape(-1)
    if len(start) != n:
        raise InputError(f"episode_start has {len(start)} entries, expected {n}: one for each observation")
    params, state = policy.step(torch.from_numpy(batch).to(policy.device), state, torch.from_numpy(start))
    if memory.masks is not None:
        mask = as_mask(memory.masks, (n,), branches(policy.distribution.to_json()), "predict")
        params = apply_mask(policy.distribution, params, mask, "predict")
    actions = act(policy, params, deterministic=deterministic, generator=generator)
    return (np.asarray(actions[0]) if single else actions), tuple(part.cpu().numpy() for part in state)


@dataclass(frozen=True)
class Memory:
    """What `predict` is given beside observations: the state of the last call (None: empty), where episodes begin [B]
    (None: nowhere), and which actions are allowed [n] or [B, n] (None: all)."""

    state: tuple[Array, ...] | None = None
    episode_start: Array | None = None
    masks: Array | None = None


def _given(policy: RecurrentPolicy, state: tuple[Array, ...], n: int) -> State:
    expected = [tuple(part.shape) for part in policy.initial_state(n)]
    shapes = [np.shape(part) for part in state]
    if shapes != expected:
        raise InputError(f"state has shapes {shapes}, expected {expected}: pass what predict returned")
    return tuple(torch.as_tensor(np.asarray(part, np.float32), device=policy.device) for part in state)


def act(policy: Policy, params: Tensor, deterministic: bool, generator: torch.Generator | None = None) -> Array:
    """Environment actions [B, *action shape] for distribution parameters [B, P]; no gradient is recorded."""
    with torch.no_grad():
        if deterministic:
            actions = policy.distribution.mode(params)
        else:
            actions = policy.distribution.sample(params, generator)
    return policy.action_map(actions.cpu().numpy())


def params_on(policy: Policy, observations: Array, masks: Array | None = None) -> Iterator[Tensor]:
    """The policy's parameters [b, P] for raw observations [B, *shape] under `masks` [B, n], one chunk after the other:
    of large observations only few are taken at once."""
    rows = policy.packing.rows(_ROWS)
    for begin in range(0, len(observations), rows):
        chunk = torch.from_numpy(np.ascontiguousarray(observations[begin : begin + rows])).to(policy.device)
        yield masked_params(policy, chunk, None if masks is None else masks[begin : begin + rows])


def as_batch(observation: Any, packing: Packing) -> tuple[Array, bool]:
    """The observation as a packed batch [B, *packing.shape] that torch can take, and whether it was a single one."""
    batch, single = packed_batch(observation, packing)
    return torch_ready(batch), single


def torch_ready(batch: Array) -> Array:
    """The array with a dtype and layout that torch takes."""
    if batch.dtype.kind == "u" and batch.dtype.itemsize > 1:
        batch = batch.astype(np.int64)  # torch's wider unsigned integers support few operations
    batch = batch if batch.dtype.isnative else batch.astype(batch.dtype.newbyteorder("="))
    return np.require(batch, requirements=("C", "W"))
