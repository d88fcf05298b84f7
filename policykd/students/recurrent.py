"""S recurrent students trained at once: one flat parameter vector as `policykd.students.family.Family` has. On a CPU
they learn by `policykd.students.recurrent_passes`; here is what a GPU does.

torch's kernel of a GRU knows one set of weights, and most of its time is launches: 48 steps of 8 chunks, forward and
backward, take 4.0 ms at width 1, 5.6 ms at 63, 8.4 ms at 127 (one CPU core). So members are learned side by side, as
one GRU of all their widths whose recurrent weights are zero outside the members' own blocks. What is not finite in one
member spreads to those beside it; the run ends then in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from policykd.loss.distributions import Distribution
from policykd.students.cuts import cheapest_cuts
from policykd.students.family import places_of
from policykd.students.gru import gru_scan
from policykd.students.numpy_backend import gru_shapes
from policykd.students.parted import PartedFamily
from policykd.students.spec import MemberSpec
from policykd.students.student import Parts, with_log_std


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


# Entries of the three gates' matrices that cost as much as the launches of one more kernel call, by the figures above.
_CALL_MACS = 50_000


@dataclass(frozen=True)
class SideBySide:
    """Neighbouring members as one GRU: where each entry of its weights, in the shapes of `gru_shapes`, stands in the
    family's vector; outside of the blocks one past its end, where a zero is put."""

    members: slice
    widths: list[int]
    places: dict[str, Tensor]

    def parts(self, flat: Tensor) -> Parts:
        """The weights, from a vector in the family's layout that may record a gradient."""
        padded = torch.cat([flat, flat.new_zeros(1)])
        return {name: padded.index_select(0, at.flatten()).view(at.shape) for name, at in self.places.items()}


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
        self.groups = [self._beside(members) for members in plan_sides(self.specs, n_inputs)]

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
        found = list[Tensor]()
        for group in self.groups:
            first = torch.cat(before[group.members], -1).unsqueeze(0)
            parts = group.parts(flat) if len(group.widths) > 1 else members[len(found)]
            hidden, _ = gru_scan(parts, inputs, first)
            for own in hidden.split(group.widths, -1):
                index = len(found)
                found.append(self.params_after(index, members[index], own, log_std))
        return torch.stack(found)

    def params_after(self, index: int, parts: Parts, hidden: Tensor, log_std: Tensor) -> Tensor:
        """Distribution parameters [..., P] for what the member with these weights remembers [..., H]."""
        return with_log_std(hidden @ parts["head.weight"] + parts["head.bias"], log_std[index, 0])

    def _beside(self, members: slice) -> SideBySide:
        widths = [spec.width for spec in self.specs[members]]
        gates, total, end = 3, sum(widths), self.flat.numel()
        places = {
            "gru.input": torch.full((gates, total, self.n_inputs), end),
            "gru.state": torch.full((gates, total, total), end),
            "gru.bias": torch.full((gates, total), end),
            "gru.new_bias": torch.full((1, total), end),
        }
        at = 0
        for index, width in zip(range(members.start, members.stop), widths, strict=True):
            rows, own = slice(at, at + width), self.parts(index)
            for name, where in places.items():
                block = where[:, rows, rows] if name == "gru.state" else where[:, rows]
                block.copy_(places_of(own[name]).view(block.shape))
            at += width
        flat = {name: where.flatten(0, 1).to(self.device) for name, where in places.items()}
        return SideBySide(members, widths, flat)

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


def plan_sides(specs: Sequence[MemberSpec], n_inputs: int) -> list[slice]:
    """Cuts sorted members into groups that are learned side by side, at the least cost of entries that are always zero
    plus kernel calls."""

    def cost(i: int, j: int) -> float:
        width = sum(spec.width for spec in specs[i:j])
        return _CALL_MACS + 3 * width * (n_inputs + width)

    return cheapest_cuts(len(specs), cost)
