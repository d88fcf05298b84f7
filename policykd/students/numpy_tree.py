"""A decision tree that acts with NumPy alone, beside `numpy_backend`."""

from __future__ import annotations

from typing import Any

import numpy as np

from policykd.spine.types import Array
from policykd.students.nodes import Nodes
from policykd.students.numpy_backend import NumpyStudent


class NumpyTreeStudent(NumpyStudent):
    """The same policy as `TreeStudent`, from the same file. ValueError for arrays that are no tree, or a normaliser."""

    def _read(self, tensors: dict[str, Array], architecture: dict[str, Any]) -> None:
        self._nodes = Nodes.from_arrays(tensors)
        self._nodes.check(len(self._mean))
        if self._mean.any() or (self._scale != 1).any():
            raise ValueError("a tree sees raw numbers, and this one has a normaliser")

    def means(self, observation: Array) -> Array:
        """Logits or means [B, M] for packed raw observations [B, *packing.shape]."""
        return np.asarray(self._nodes.outputs(self.packing.features(observation)))
