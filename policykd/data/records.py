"""Labelled states of students that see images: kept as the bytes that were observed, a quarter of float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.spine.packing import Leaf, Packing
from policykd.spine.types import Array
from policykd.students.encoders import normaliser_places
from policykd.students.normaliser import Normaliser, TensorNormaliser


class Records:
    """Packed observations as bytes, leaf after leaf: one for each number of a uint8 leaf, the four of a float32 for any
    other, which is what its feature will be."""

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self._widths = [leaf.size * (1 if _is_byte(leaf) else 4) for leaf in packing.leaves]
        self.n_bytes = sum(self._widths)
        self._rows = packing.rows(1024)

    def encode(self, packed: Array) -> NDArray[np.uint8]:
        """[M, n_bytes] of packed observations [M, *shape]."""
        found = np.empty((len(packed), self.n_bytes), np.uint8)
        end = 0
        for leaf, width in zip(self.packing.leaves, self._widths, strict=True):
            values = self.packing.leaf_of(packed, leaf).reshape(len(packed), leaf.size)
            begin, end = end, end + width
            found[:, begin:end] = values if _is_byte(leaf) else np.ascontiguousarray(values, np.float32).view(np.uint8)
        return found

    def features(self, rows: Tensor) -> Tensor:
        """A student's features [B, F] of records [B, n_bytes], on their device."""
        parts, end = [], 0
        for leaf, width in zip(self.packing.leaves, self._widths, strict=True):
            begin, end = end, end + width
            own = rows[:, begin:end]
            parts.append(
                own if _is_byte(leaf) else own.clone(memory_format=torch.contiguous_format).view(torch.float32)
            )
        if self.packing.plain:
            return self.packing.tensor_features(parts[0])
        return self.packing.tensor_features(torch.cat([part.float() for part in parts], -1))

    def chunks(self, rows: Tensor) -> Iterator[Tensor]:
        """The records, few enough at a time to be computed on."""
        yield from rows.split(self._rows)


class RecordDataset(Dataset):
    """As `Dataset`, of records [M, n_bytes]; `take` gives the normalised features of a mini-batch."""

    def __init__(self, packing: Packing, n_params: int, max_states: int, device: torch.device | str) -> None:
        self.records = Records(packing)
        super().__init__(self.records.n_bytes, n_params, max_states, device, torch.uint8)
        self.normaliser: Normaliser | TensorNormaliser | None = None

    def measured(self, rows: Tensor) -> Normaliser:
        """The normaliser for states like these records [M, n_bytes]; of an image one mean and scale a channel."""

        def parts() -> Iterator[Array]:
            yield from (self.records.features(chunk).cpu().numpy() for chunk in self.records.chunks(rows))

        return Normaliser.measured_by_place(parts, normaliser_places(self.records.packing))

    def inputs(self, rows: Tensor) -> Tensor:
        """Normalised features [B, F] of records [B, n_bytes]."""
        assert self.normaliser is not None
        return self.normaliser.apply(self.records.features(rows))

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [B, F] and parameters [B, P] of the states `index` [B], drawn below len(self)."""
        rows, params = super().take(index)
        return self.inputs(rows), params


def _is_byte(leaf: Leaf) -> bool:
    return leaf.dtype in ("uint8", "bool")
