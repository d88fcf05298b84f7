"""Whether a graph takes its observations one by one: a label must not depend on what else is in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policykd.spine.errors import InputError
from policykd.teachers.onnxio.session import OnnxRun

if TYPE_CHECKING:
    from gymnasium import Space

_TRIED = 4  # observations; as many as one run takes (a power of four)
_TOLERANCE = 1e-4  # of the largest output; sums in another order differ by far less


def check_rows(run: OnnxRun, space: Space[Any]) -> None:
    """InputError if some random observations give other outputs together than one by one, beyond rounding."""
    if run.rows == 1:
        return
    rows = torch.from_numpy(_drawn(space))
    together, alone = run(rows).numpy(), np.concatenate([run(row[None]).numpy() for row in rows])
    finite = np.isfinite(alone)
    scale = float(np.abs(alone[finite]).max(initial=0.0))
    if not np.allclose(together, alone, rtol=0.0, atol=_TOLERANCE * scale, equal_nan=True):
        raise InputError(
            f"{run.name}: mixes the observations of a batch: {_TRIED} observations give other outputs together than "
            "one by one, so that a label would depend on the rest of its batch; export it in evaluation mode, with "
            "reductions and softmax over the last dimension"
        )


def _drawn(space: Any) -> np.ndarray:
    """Observations [4, *shape] of several sizes, within the bounds of the space, always the same for one space."""
    rng = np.random.default_rng(0)
    shape = (_TRIED, *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        return np.asarray(rng.integers(space.low, space.high, shape, endpoint=True), np.float32)
    sizes = np.array([0.1, 1.0, 1.0, 10.0]).reshape(-1, *[1] * len(space.shape))
    return np.asarray(np.clip(rng.normal(size=shape) * sizes, space.low, space.high), np.float32)
