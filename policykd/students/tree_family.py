"""S decision trees, of which each is refitted as a whole: their nodes as numbers in one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.types import Footprint
from policykd.students.nodes import Nodes
from policykd.students.spec import MemberSpec
from policykd.students.student import with_log_std


class TreeFamily:
    """The students. Members are ordered, whatever order they were asked for in.

    `flat` holds, member after member, the number of inner nodes, then the arrays of `Nodes` with room for as many
    leaves as the member may have, then every log_std: snapshots and checkpoints are copies of it. Zeros are a tree of
    one leaf, whose logits or means are 0.
    """

    def __init__(
        self,
        specs: Iterable[MemberSpec],
        n_inputs: int,
        distribution: Distribution,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.specs = tuple(sorted(specs))
        self.n_inputs, self.distribution = n_inputs, distribution
        self.device = torch.device(device)
        self.n_means = distribution.n_means
        n_log_std = distribution.n_params - distribution.n_means
        self._sizes = [1 + self._room(spec) for spec in self.specs] + [len(self.specs) * n_log_std]
        self.flat = torch.zeros(sum(self._sizes), device=self.device)
        self.log_std = self.flat[sum(self._sizes[:-1]) :].view(len(self.specs), 1, n_log_std)

    def __len__(self) -> int:
        return len(self.specs)

    def footprint(self, index: int) -> Footprint:
        """The size that the member may have; a tree that needs fewer leaves is smaller."""
        return self.specs[index].footprint(self.n_inputs, self.n_means)

    def put(self, index: int, nodes: Nodes) -> None:
        """Makes the member this tree, of at most as many leaves as its spec says."""
        parts = [np.asarray([len(nodes)], np.float32), *(x.reshape(-1) for x in nodes.arrays().values())]
        values = torch.from_numpy(np.concatenate(parts))
        own = self._own(index)
        assert len(values) <= len(own)
        own.zero_()
        own[: len(values)] = values

    def nodes(self, index: int) -> Nodes:
        """The member's tree, as it is now."""
        own = self._own(index).cpu().numpy()
        shapes = Nodes.shapes(int(own[0]) + 1, self.n_means)
        found, end = {}, 1
        for name, shape in shapes.items():
            begin, end = end, end + int(np.prod(shape))
            found[name] = own[begin:end].reshape(shape).copy()
        return Nodes.from_arrays(found)

    def member(self, index: int) -> Callable[[Tensor], Tensor]:
        """The member alone, as it is now: inputs [B, O] to distribution parameters [B, P]."""
        nodes, log_std = self.nodes(index), self.member_log_std(index)
        return lambda x: with_log_std(torch.from_numpy(nodes.outputs(x.cpu().numpy())).to(x.device), log_std)

    def member_log_std(self, index: int) -> Tensor:
        """The member's log_std [A], empty when the distribution has none."""
        return self.log_std[index, 0].clone()

    def _own(self, index: int) -> Tensor:
        begin = sum(self._sizes[:index])
        return self.flat[begin : begin + self._sizes[index]]

    def _room(self, spec: MemberSpec) -> int:
        return sum(int(np.prod(shape)) for shape in Nodes.shapes(spec.leaves, self.n_means).values())
