"""The labelled states that all members share: on the device, bounded, oldest dropped first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Dataset:
    """Normalised student inputs [M, O], of `dtype`, and teacher parameters [M, P], float32.

    A ring of at most `max_states`; its memory grows by doubling, so that a short run does not pay for the bound.
    """

    def __init__(
        self,
        n_inputs: int,
        n_params: int,
        max_states: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.max_states = max_states
        self.weigh: Callable[[Tensor], Tensor] | None = None  # of labels [K, P]: how often each state is drawn [K]
        self._weight = torch.empty(0, 1, device=device)
        self.dropped = 0
        self._size = 0
        self._next = 0
        self._inputs = torch.empty(0, n_inputs, device=device, dtype=dtype)
        self._params = torch.empty(0, n_params, device=device)

    def __len__(self) -> int:
        return self._size

    @property
    def params(self) -> Tensor:
        """Teacher parameters [M, P] of all states that it holds."""
        return self._params[: self._size]

    @property
    def weights(self) -> Tensor | None:
        """How often each state is drawn [M], of any scale; None where all are as likely."""
        return None if self.weigh is None else self._weight[: self._size, 0]

    def append(self, inputs: Tensor, params: Tensor) -> int:
        """Adds states [K, O] with labels [K, P]; returns how many old (or surplus) ones were dropped for it."""
        surplus = max(len(inputs) - self.max_states, 0)
        inputs, params = inputs[surplus:], params[surplus:]
        count = len(inputs)
        self._reserve(min(self._size + count, self.max_states))
        dropped = surplus + max(self._size + count - self.max_states, 0)
        first = min(count, len(self._inputs) - self._next)
        pairs = [(self._inputs, inputs), (self._params, params)]
        if self.weigh is not None:
            pairs.append((self._weight, self.weigh(params).unsqueeze(-1)))
        for store, new in pairs:
            store[self._next : self._next + first] = new[:first]
            store[: count - first] = new[first:]
        self._next = (self._next + count) % max(len(self._inputs), 1) if self._full(count) else self._next + count
        self._size = min(self._size + count, self.max_states)
        self.dropped += dropped
        return dropped

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [..., O] and parameters [..., P] of the states `index` [...], drawn below len(self)."""
        flat = index.reshape(-1)
        inputs, params = self._inputs.index_select(0, flat), self._params.index_select(0, flat)
        return inputs.view(*index.shape, inputs.shape[-1]), params.view(*index.shape, params.shape[-1])

    def draw(self, updates: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Indices [updates, batch_size] with replacement, in one call: uniform, or in proportion to the weights."""
        if self.weights is not None:
            return _drawn(self.weights, (updates, batch_size), generator)
        return torch.randint(self._size, (updates, batch_size), generator=generator, device=self._inputs.device)

    def _full(self, count: int) -> bool:
        return self._size + count >= self.max_states

    def _reserve(self, needed: int) -> None:
        capacity = len(self._inputs)
        if needed <= capacity:
            return
        capacity = min(max(needed, 2 * capacity, 1024), self.max_states)
        for name in ("_inputs", "_params") if self.weigh is None else ("_inputs", "_params", "_weight"):
            old: Tensor = getattr(self, name)
            new = old.new_empty(capacity, old.shape[1])
            new[: self._size] = old[: self._size]
            setattr(self, name, new)


def _drawn(weights: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Indices of this shape in proportion to weights [M]; uniform where all are zero. By inverting the cumulative sum:
    torch.multinomial takes no more than 2^24 weights."""
    total = weights.double().cumsum(0)
    if not float(total[-1]) > 0.0:
        total = torch.arange(1, len(weights) + 1, device=weights.device, dtype=torch.double)
    where = torch.rand(shape, generator=generator, device=weights.device, dtype=torch.double) * total[-1]
    return torch.searchsorted(total, where, right=True).clamp_(max=len(weights) - 1)
