"""What a label holds behind the teacher's parameters where the loss asks for more: made once, kept with the shard."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.learn.updates.aside import Target, pairs_of, targets_of
from policykd.learn.updates.attention import Attended, Size, attended, attention_map
from policykd.loss.losses import action_width
from policykd.spine.config.schema import Config
from policykd.spine.errors import InputError
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Array
from policykd.students.encoders import planned
from policykd.students.spec import MemberSpec
from policykd.students.view import View
from policykd.teachers.base import Teacher

_ROWS = 4096  # states that the teacher is asked about at once


def label_width(config: Config, teacher: Teacher) -> int:
    """Numbers of one label: the teacher's parameters, and what stands beside them."""
    last: list[Target | Attended] = [*asides(config, teacher), *attentions(config, teacher)]
    return last[-1].columns.stop if last else _first(config, teacher)


def asides(config: Config, teacher: Teacher) -> list[Target]:
    """What the members learn by heads, and where it stands in a label. InputError where this teacher does not know it.
    Students with heads have no convolutions."""
    if not config.aside.heads:
        return []
    depths = config.student.depth if isinstance(config.student.depth, list) else [config.student.depth]
    return targets_of(config.aside, min(depths), _sizes(config, teacher), _first(config, teacher))


def attentions(config: Config, teacher: Teacher) -> list[Attended]:
    """The attention maps that pull at the members, and where they stand in a label. InputError where teacher and
    student have none that could be compared."""
    if not config.aside.attention:
        return []
    blank = torch.zeros((1, *teacher.packing.shape), device=teacher.device)
    theirs = {path: [_size(one) for one in maps] for path, maps in teacher.maps(blank).items()}
    if not theirs:
        raise InputError(
            f"aside.attention: {teacher.info.source} has no convolutions: leave it out, or use a teacher of images"
        )
    packing = View.of(config.student.keys, teacher.observation_space, teacher.packing).packing
    spec = MemberSpec(0, 1, kind="multi", channels=1, conv=config.student.conv)  # maps of any number have one size
    encoders = zip(packing.leaves, planned(spec, packing, 1).encoders, strict=True)
    ours = {leaf.path: encoder.maps for leaf, encoder in encoders}
    return attended(config.aside.attention_pairs, theirs, ours, _first(config, teacher))


def beside(
    config: Config, teacher: Teacher, params: NDArray[np.float32], seen: Array, round_index: int
) -> NDArray[np.float32] | None:
    """The columns [M, E] beside the teacher's parameters [M, P] of one round's states, which it saw as `seen`
    [M, *shape], packed; None where there are none.

    loss.hard sample: one action that the teacher draws in each state, in the shape of `Distribution.sample`. aside: its
    value of the state, and the activations of its hidden layers; or its attention maps.
    """
    parts = list[NDArray[np.float32]]()
    if _draws(config):
        generator = SeedKey(config.seed, "draw", round_index).torch("cpu")
        action = teacher.distribution.sample(torch.from_numpy(np.ascontiguousarray(params)), generator)
        parts.append(action.reshape(len(params), -1).float().numpy())
    if config.aside.active:
        rows = teacher.packing.rows(_ROWS)
        batches = [torch.from_numpy(seen[k : k + rows]).to(teacher.device) for k in range(0, len(seen), rows)]
        pairs = attentions(config, teacher)
        known = [_attention(pairs, teacher, batch) if pairs else _known(config, teacher, batch) for batch in batches]
        parts.append(np.concatenate(known))
    return np.concatenate(parts, 1) if parts else None


def _attention(pairs: list[Attended], teacher: Teacher, observation: Tensor) -> NDArray[np.float32]:
    """The teacher's attention maps of these states [B, E], in the order of `pairs`."""
    maps = [one for own in teacher.maps(observation).values() for one in own]
    return torch.cat([attention_map(maps[pair.theirs - 1], pair.size) for pair in pairs], -1).cpu().numpy()


def _size(activations: Tensor) -> Size:
    return activations.shape[-2], activations.shape[-1]


def _known(config: Config, teacher: Teacher, observation: Tensor) -> NDArray[np.float32]:
    """What is learned aside of these states [B, E], in the order of `asides`."""
    found = [teacher.value(observation).unsqueeze(-1)] if config.aside.value else []
    if config.aside.hints:
        layers = teacher.features(observation)
        depths = config.student.depth if isinstance(config.student.depth, list) else [config.student.depth]
        found += [layers[theirs - 1] for theirs, _ in pairs_of(config.aside, min(depths), len(layers))]
    return torch.cat(found, -1).float().cpu().numpy()


def _sizes(config: Config, teacher: Teacher) -> list[int]:
    """Units of each hidden layer of the teacher. InputError where one that is named is not there."""
    blank = torch.zeros((1, *teacher.packing.shape), device=teacher.device)
    if config.aside.value:
        teacher.value(blank)
    if not config.aside.hints:
        return []
    sizes = [layer.shape[-1] for layer in teacher.features(blank)]
    named = [theirs for theirs, _ in config.aside.pairs or []]
    if not sizes or max(named, default=1) > len(sizes):
        raise InputError(
            f"aside.pairs: {teacher.info.source} has {len(sizes)} hidden layers"
            + (f", and layer {max(named)} is named: name one of them" if sizes and named else ": leave hints out")
        )
    return sizes


def _first(config: Config, teacher: Teacher) -> int:
    """Where the columns of `aside` begin."""
    return teacher.distribution.n_params + (action_width(teacher.distribution) if _draws(config) else 0)


def _draws(config: Config) -> bool:
    return config.loss.hard == "sample" and config.loss.uses_hard
