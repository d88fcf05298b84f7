"""Labelled states as episodes, for students with a memory: cut into chunks that are learned from, each with a burn-in.

Truncated back-propagation through time with stored states and burn-in (Kapturowski et al. 2019, R2D2). Where it
differs: a chunk never reaches over an episode's start, and what the members remember before it is computed anew from
whole episodes with every round's first weights, so that only the updates of one round make it stale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policykd.students.recurrent import Episodes, GruFamily

CHUNK = 32  # steps that are learned from
BURN_IN = 16  # steps before them, at most


@dataclass(frozen=True)
class Chunks:
    """U mini-batches of B chunks of W steps: inputs [U, B, W, O], params [U, B, W, P], weight [U, B, W] (0 for the
    burn-in and past the end), and what each member remembers before the first step, [U, B, H] each."""

    inputs: Tensor
    params: Tensor
    weight: Tensor
    before: list[Tensor]

    def __len__(self) -> int:
        return len(self.inputs)


class SequenceDataset:
    """Normalised student inputs [M, O] and teacher parameters [M, P], float32, in the order of steps, episode after
    episode. At most `max_states`; the oldest episodes are dropped first."""

    def __init__(self, n_inputs: int, n_params: int, max_states: int, device: torch.device | str) -> None:
        self.max_states, self.dropped = max_states, 0
        self._inputs = torch.empty(0, n_inputs, device=device)
        self._params = torch.empty(0, n_params, device=device)
        self._start = torch.empty(0, dtype=torch.bool, device=device)
        self._first = self._begin = self._end = torch.empty(0, dtype=torch.long, device=device)
        self._after: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def params(self) -> Tensor:
        """Teacher parameters [M, P] of all states that it holds."""
        return self._params

    def append(self, inputs: Tensor, params: Tensor, start: Tensor) -> int:
        """Adds whole sequences: states [K, O] with labels [K, P]; `start` [K] is True where an episode begins, as the
        first row must. Returns how many old states were dropped for it."""
        begins = start.to(self._inputs.device, torch.bool).clone()
        begins[:1] = True
        self._inputs = torch.cat([self._inputs, inputs])
        self._params = torch.cat([self._params, params])
        self._start = torch.cat([self._start, begins])
        surplus = max(len(self._inputs) - self.max_states, 0)
        if surplus:  # up to the next episode that fits, or, of a single long one, up to any step
            later = self._start[surplus:].nonzero()
            surplus += int(later[0]) if len(later) else 0
            self._inputs, self._params = self._inputs[surplus:].clone(), self._params[surplus:].clone()
            self._start = self._start[surplus:].clone()
            self._start[:1] = True
        self.dropped += surplus
        self._cut()
        return surplus

    def remember(self, family: GruFamily) -> None:
        """What each member remembers after each state, with the weights as they are now."""
        self._after = family.scan(self._inputs, Episodes.of(self._start))

    def draw(self, updates: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Chunks [updates, B] with replacement, about `batch_size` states an update, every state as likely."""
        count = max(batch_size // CHUNK, 1)
        odds = (self._end - self._begin).double()
        return torch.multinomial(odds, updates * count, True, generator=generator).view(updates, count)

    def take(self, index: Tensor) -> Chunks:
        """The chunks `index` [U, B]."""
        steps = torch.arange(BURN_IN + CHUNK, device=index.device)
        first, begin, end = self._first[index], self._begin[index], self._end[index]
        rows = first.unsqueeze(-1) + steps
        weight = ((rows >= begin.unsqueeze(-1)) & (rows < end.unsqueeze(-1))).float()
        rows = torch.minimum(rows, end.unsqueeze(-1) - 1)
        fresh = self._start[first].unsqueeze(-1)
        last = (first - 1).clamp(min=0)
        before = [torch.where(fresh, torch.zeros((), device=after.device), after[last]) for after in self._after]
        return Chunks(self._inputs[rows], self._params[rows], weight, before)

    def _cut(self) -> None:
        """Chunks of every episode: the steps [begin, end) to learn from, and `first`, where the burn-in begins."""
        episodes = Episodes.of(self._start)
        counts = (episodes.length + CHUNK - 1) // CHUNK
        episode = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        before = torch.cumsum(counts, 0) - counts
        number = torch.arange(len(episode), device=counts.device) - before[episode]
        origin, length = episodes.begin[episode], episodes.length[episode]
        self._begin = origin + number * CHUNK
        self._end = torch.minimum(self._begin + CHUNK, origin + length)
        self._first = torch.maximum(self._begin - BURN_IN, origin)
