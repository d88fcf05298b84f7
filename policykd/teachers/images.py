"""Images that the environment gives with their channels last, for networks that take them first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from policykd.spine.packing import packing_of
from policykd.spine.spaces import ordered_like

if TYPE_CHECKING:
    from gymnasium import Space


@dataclass(frozen=True)
class Turned:
    """The environment's space, and which leaves of its packing have their channels last."""

    space: Space[Any]
    channels_last: frozenset[int]


def turned_images(model: Space[Any], env: Space[Any]) -> Turned | None:
    """How the images of `env` must be turned to become those of `model`; None where nothing need be, or can be, turned.

    Only uint8 images are turned (height, width, channels to channels, height, width), as stable-baselines3 does.
    """
    env = ordered_like(env, model)
    ours, theirs = packing_of(model), packing_of(env)
    if ours.plain != theirs.plain or [leaf.path for leaf in ours.leaves] != [leaf.path for leaf in theirs.leaves]:
        return None
    turned = set()
    for index, (wanted, found) in enumerate(zip(ours.leaves, theirs.leaves, strict=True)):
        if wanted.shape == found.shape:
            continue
        is_image = len(found.shape) == 3 and np.dtype(found.dtype) == np.uint8
        if not is_image or (found.shape[2], *found.shape[:2]) != wanted.shape:
            return None
        turned.add(index)
    return Turned(env, frozenset(turned)) if turned else None
