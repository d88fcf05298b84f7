"""S recurrent students trained at once: a plain loop over the members, since torch's kernel of a GRU knows one set of
weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from policykd.loss.distributions import Distribution
from policykd.students.family import MemberSpec
from policykd.students.gru import gru_scan
from policykd.students.numpy_backend import gru_shapes
from policykd.students.parted import PartedFamily, with_log_std
from policykd.students.student import Parts


@dataclass(frozen=True)
class Episodes:
    """Rows of consecutive steps, one episode after the other. `begin`, `length` [E]."""

    begin: Tensor
    length: Tensor

    @classmethod
    def of(cls, start: Tensor) -> Episodes:
        """Of rows whose `start` [M] is True where an episode begins; the first row always does."""
        begins = start.to(torch.bool).clone()
        begins[:1] = True
        begin = begins.nonzero().squeeze(-1)
        ends = torch.cat([begin[1:], begin.new_tensor([len(start)])])
        return cls(begin, ends - begin)

    @property
    def order(self) -> tuple[Tensor, Tensor]:
        """The rows [M] as torch packs sequences, step by step with the longest episode first; and how many episodes
        still run at each step [T], on the CPU."""
        rank = torch.empty_like(self.length)
        rank[torch.argsort(self.length, descending=True, stable=True)] = torch.arange(
            len(rank), device=rank.device, dtype=rank.dtype
        )
        episode = torch.repeat_interleave(torch.arange(len(rank), device=rank.device), self.length)
        step = torch.arange(len(episode), device=rank.device) - self.begin[episode]
        order = torch.argsort(step * len(rank) + rank[episode])
        return order, torch.bincount(step).cpu()


class GruFamily(PartedFamily):
    """The trainable students, with the weights of `gru_shapes`."""

    def __init__(
        self,
        specs: Iterable[MemberSpec],
        n_inputs: int,
        distribution: Distribution,
        *,
        root_seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_inputs = n_inputs
        super().__init__(specs, n_inputs, distribution, root_seed=root_seed, device=device)

    def shapes_of(self, spec: MemberSpec) -> dict[str, tuple[int, ...]]:
        """Those of `gru_shapes`."""
        return gru_shapes(self.n_inputs, spec.width, self.n_means)

    def stream_of(self, spec: MemberSpec) -> tuple[int, ...]:
        """Another than that of an mlp of as many layers and units."""
        return (1,)

    @torch.no_grad()
    def scan(self, inputs: Tensor, episodes: Episodes) -> list[Tensor]:
        """What each member remembers after each row [M, H], for normalised inputs [M, O] of whole episodes."""
        order, sizes = episodes.order
        packed = PackedSequence(inputs[order], sizes)
        found = []
        for index, spec in enumerate(self.specs):
            hidden = inputs.new_zeros(1, int(sizes[0]), spec.width)
            after = torch.empty(len(inputs), spec.width, device=inputs.device)
            after[order] = gru_scan(self.parts(index), packed, hidden)[0]
            found.append(after)
        return found

    @torch.no_grad()
    def along(self, inputs: Tensor, start: Tensor) -> Tensor:
        """Distribution parameters [S, M, P] for normalised inputs [M, O]; `start` [M] says where episodes begin."""
        hidden = self.scan(inputs, Episodes.of(start))
        return torch.stack([self.params_after(i, self.parts(i), h, self.log_std) for i, h in enumerate(hidden)])

    def outputs(self, flat: Tensor, inputs: Tensor, before: list[Tensor]) -> Tensor:
        """Distribution parameters [S, B, T, P] for normalised inputs [B, T, O], from what each member remembers before
        them [B, H] on; `flat` is a vector in the family's layout that may record a gradient."""
        members, log_std = self.split(flat)
        found = []
        for index, parts in enumerate(members):
            hidden, _ = gru_scan(parts, inputs, before[index].unsqueeze(0))
            found.append(self.params_after(index, parts, hidden, log_std))
        return torch.stack(found)

    def params_after(self, index: int, parts: Parts, hidden: Tensor, log_std: Tensor) -> Tensor:
        """Distribution parameters [..., P] for what the member with these weights remembers [..., H]."""
        return with_log_std(hidden @ parts["head.weight"] + parts["head.bias"], log_std[index, 0])

    def _initialise(self, index: int, rng: np.random.Generator) -> None:
        """Uniform in +-1/sqrt(H) as torch.nn.GRU, the head a tenth of it and without bias; z starts near 0.73, so that
        memories last."""
        spec, parts = self.specs[index], self.parts(index)
        scale = 1.0 / np.sqrt(spec.width)
        for name, part in parts.items():
            values = rng.uniform(-scale, scale, tuple(part.shape)).astype(np.float32)
            part.copy_(torch.from_numpy(values * (0.1 if name == "head.weight" else 1.0)))
        parts["head.bias"].zero_()
        parts["gru.bias"][spec.width : 2 * spec.width].add_(1.0)
