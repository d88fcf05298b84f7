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
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from policykd.loss.distributions import Distribution
from policykd.spine.seeding import SeedKey
from policykd.students.cuts import cheapest_cuts
from policykd.students.family import MemberSpec, places_of
from policykd.students.gru import Parts, gru_scan
from policykd.students.numpy_backend import gru_shapes


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


class GruFamily:
    """The trainable students. Members are ordered by (depth, width, seed), whatever order they were asked for in.

    `flat` holds, member after member, the weights of `gru_shapes`, then every log_std; `grad` has the same layout.
    """

    def __init__(
        self,
        specs: Iterable[MemberSpec],
        n_inputs: int,
        distribution: Distribution,
        *,
        root_seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.specs = tuple(sorted(specs))
        self.n_inputs, self.distribution = n_inputs, distribution
        self.device = torch.device(device)
        self.n_means = distribution.n_means
        n_log_std = distribution.n_params - distribution.n_means
        self._layout, end = [], 0
        for spec in self.specs:
            places = {}
            for name, shape in gru_shapes(n_inputs, spec.width, self.n_means).items():
                places[name] = (end, shape)
                end += int(np.prod(shape))
            self._layout.append(places)
        self._weights = end
        self.flat = torch.zeros(end + len(self.specs) * n_log_std, device=self.device)
        self.grad = torch.zeros_like(self.flat)
        shape = (len(self.specs), 1, n_log_std)
        self.log_std = self.flat[end:].view(shape)  # [S, 1, A], empty when the distribution has none
        self.d_log_std = self.grad[end:].view(shape)
        self.groups = [self._beside(members) for members in plan_sides(self.specs, n_inputs)]
        for index in range(len(self.specs)):
            self._initialise(index, root_seed)

    def __len__(self) -> int:
        return len(self.specs)

    def like(self, specs: Iterable[MemberSpec]) -> Self:
        """Another family of the same kind, with its own first weights."""
        return type(self)(specs, self.n_inputs, self.distribution, device=self.device)

    def places(self, index: int) -> list[Tensor]:
        """Where the member's own weights and log_std stand in the flat vector."""
        own = [*self.parts(index).values(), self.log_std[index]]
        return [places_of(part).reshape(-1) for part in own]

    def parts(self, index: int, flat: Tensor | None = None) -> Parts:
        """The member's weights by name, as views of the family's vector, or of another of its layout."""
        source = self.flat if flat is None else flat
        places = self._layout[index].items()
        return {name: source[at : at + int(np.prod(shape))].view(shape) for name, (at, shape) in places}

    def member_parts(self, index: int) -> Parts:
        """The member's weights by name, as copies."""
        return {name: part.clone() for name, part in self.parts(index).items()}

    def member_log_std(self, index: int) -> Tensor:
        """The member's log_std [A], empty when the distribution has none."""
        return self.log_std[index, 0].clone()

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
        log_std, found = flat[self._weights :].view(self.log_std.shape), list[Tensor]()
        for group in self.groups:
            first = torch.cat(before[group.members], -1).unsqueeze(0)
            parts = group.parts(flat) if len(group.widths) > 1 else self.parts(len(found), flat)
            hidden, _ = gru_scan(parts, inputs, first)
            for own in hidden.split(group.widths, -1):
                index = len(found)
                found.append(self.params_after(index, self.parts(index, flat), own, log_std))
        return torch.stack(found)

    def member_grad_norms(self) -> Tensor:
        """The gradient norm of each member [S]."""
        squares = self.d_log_std.square().sum((1, 2))
        for index in range(len(self)):
            for part in self.parts(index, self.grad).values():
                squares[index] += part.square().sum()
        return squares.sqrt()

    def scale_member_grads(self, factors: Tensor) -> None:
        """Multiplies each member's gradient by its factor [S]."""
        self.d_log_std.mul_(factors.view(-1, 1, 1))
        for index in range(len(self)):
            for part in self.parts(index, self.grad).values():
                part.mul_(factors[index])

    def params_after(self, index: int, parts: Parts, hidden: Tensor, log_std: Tensor) -> Tensor:
        """Distribution parameters [..., P] for what the member with these weights remembers [..., H]."""
        means = hidden @ parts["head.weight"] + parts["head.bias"]
        own = log_std[index, 0]
        return torch.cat([means, own.expand(*means.shape[:-1], -1)], -1) if len(own) else means

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

    def _initialise(self, index: int, root_seed: int) -> None:
        """Uniform in +-1/sqrt(H) as torch.nn.GRU, the head a tenth of it and without bias; z starts near 0.73, so that
        memories last; each architecture has its own stream."""
        spec, parts = self.specs[index], self.parts(index)
        rng = SeedKey(root_seed, "init").numpy(spec.depth, spec.width, spec.seed, 1)
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
