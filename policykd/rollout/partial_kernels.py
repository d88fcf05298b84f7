"""Policies in NumPy that look at a part of what the environment shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from policykd.spine.types import Array

if TYPE_CHECKING:
    from policykd.rollout.kernels import Kernel

Columns = slice | NDArray[np.int64]


@dataclass(frozen=True)
class _Seeing:
    """A `policykd.rollout.kernels.Kernel` that sees some columns of packed observations [B, n]."""

    kernel: Kernel
    columns: Columns

    @property
    def log_std(self) -> NDArray[np.float32]:
        return self.kernel.log_std

    def means(self, observation: Array) -> NDArray[np.float32]:
        return self.kernel.means(observation[:, self.columns])


def seeing(kernel: Kernel | None, columns: Columns | None) -> Kernel | None:
    """The kernel as it acts on rows of which it sees these columns; None for all of them."""
    return kernel if kernel is None or columns is None else _Seeing(kernel, columns)
