"""S students trained at once: batched matrix products over members of similar width, one flat parameter vector.

Members of one depth are sorted by width and cut into groups; inside a group narrower members are padded with zeros
to the widest. The padding stays exactly zero: a padded unit has zero input and activation(0) = 0, so every gradient
that touches it is zero. The backward pass is written by hand (two batched products a layer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Footprint
from policykd.students.cuts import cheapest_cuts
from policykd.students.spec import Activation, MemberSpec
from policykd.students.student import with_log_std

# Multiply-accumulates per state that cost as much as the kernel launches of one more group (measured on one CPU core:
# about 0.15 ms of launches against about 15 G multiply-accumulates/s at batch 256, forward and backward).
_GROUP_OVERHEAD_MACS = 4000


@dataclass
class Group:
    """Members of one depth padded to one width. Views into the family's flat vectors.

    weights[k], d_weights[k]: [G, in, out]; biases[k], d_biases[k]: [G, 1, out].
    """

    members: slice
    weights: list[Tensor]
    biases: list[Tensor]
    d_weights: list[Tensor]
    d_biases: list[Tensor]


class Family:
    """The trainable students. Members are ordered by (depth, width, seed), whatever order they were asked for in."""

    def __init__(
        self,
        specs: Iterable[MemberSpec],
        n_inputs: int,
        distribution: Distribution,
        *,
        activation: Activation = "tanh",
        root_seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.specs = tuple(sorted(specs))
        self.n_inputs, self.distribution, self.activation = n_inputs, distribution, activation
        self.device = torch.device(device)
        self.n_means = distribution.n_means
        self._n_log_std = distribution.n_params - distribution.n_means
        plan = plan_groups(self.specs, n_inputs, self.n_means)
        total = sum(self._group_size(group) for group in plan) + len(self.specs) * self._n_log_std
        self.flat = torch.zeros(total, device=self.device)
        self.grad = torch.zeros(total, device=self.device)
        self.groups, end = [], 0
        for members in plan:
            group, end = self._carve(members, end)
            self.groups.append(group)
        shape = (len(self.specs), 1, self._n_log_std)
        self.log_std = self.flat[end:].view(shape)  # [S, 1, A], empty when the distribution has none
        self.d_log_std = self.grad[end:].view(shape)
        for index in range(len(self.specs)):
            self._initialise(index, root_seed)

    def __len__(self) -> int:
        return len(self.specs)

    def like(self, specs: Iterable[MemberSpec]) -> Self:
        """Another family of the same kind, with its own first weights."""
        activation, device = self.activation, self.device
        return type(self)(specs, self.n_inputs, self.distribution, activation=activation, device=device)

    def places(self, index: int) -> list[Tensor]:
        """Where the member's own weights, biases and log_std stand in the flat vector, without padding."""
        group, row = self._locate(index)
        found = []
        for weight, bias, (i, o) in zip(
            group.weights, group.biases, self.specs[index].sizes(self.n_inputs, self.n_means), strict=True
        ):
            found += [places_of(weight)[row, :i, :o].reshape(-1), places_of(bias)[row, 0, :o].reshape(-1)]
        return [*found, places_of(self.log_std)[index].reshape(-1)]

    def footprint(self, index: int) -> Footprint:
        """The member's size."""
        return self.specs[index].footprint(self.n_inputs, self.n_means)

    def forward(self, inputs: Tensor) -> Tensor:
        """Distribution parameters [S, B, P] for normalised inputs [B, O] shared by all, or [S, B, O] one each."""
        return self._with_log_std(self._run(inputs, None))

    def forward_saving(self, inputs: Tensor, saved: list[list[Tensor]]) -> Tensor:
        """As `forward`, and appends each group's layer inputs to `saved` for `backward`."""
        return self._with_log_std(self._run(inputs, saved))

    def backward(
        self, d_params: Tensor, saved: list[list[Tensor]], pull: Sequence[Mapping[int, Tensor]] | None = None
    ) -> None:
        """Overwrites `grad` with the gradient of a loss whose gradient by the parameters is d_params [S, B, P]; and by
        the hidden layers of each group, where `pull` names some, [G, B, H]."""
        if self._n_log_std:
            torch.sum(d_params[..., self.n_means :], dim=1, keepdim=True, out=self.d_log_std)
        pulls = pull or [{}] * len(saved)
        for group, layers, beside in zip(self.groups, saved, pulls, strict=True):
            delta = d_params[group.members, :, : self.n_means].contiguous()
            for k in reversed(range(len(layers))):
                x = layers[k]
                torch.bmm(x.transpose(1, 2), delta, out=group.d_weights[k])
                torch.sum(delta, dim=1, keepdim=True, out=group.d_biases[k])
                if k:
                    delta = torch.bmm(delta, group.weights[k].transpose(1, 2))
                    if k in beside:
                        delta.add_(beside[k])
                    if self.activation == "tanh":
                        delta.addcmul_(delta * x, x, value=-1.0)
                    else:
                        delta.mul_(x > 0)

    def member_grad_norms(self) -> Tensor:
        """The gradient norm of each member [S]."""
        squares = self.d_log_std.square().sum((1, 2))
        for group in self.groups:
            for tensor in (*group.d_weights, *group.d_biases):
                squares[group.members] += tensor.square().sum((1, 2))
        return squares.sqrt()

    def scale_member_grads(self, factors: Tensor) -> None:
        """Multiplies each member's gradient by its factor [S]."""
        self.d_log_std.mul_(factors.view(-1, 1, 1))
        for group in self.groups:
            for tensor in (*group.d_weights, *group.d_biases):
                tensor.mul_(factors[group.members].view(-1, 1, 1))

    def member_layers(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """The member's own weights [in, out] and biases [out] without padding, as copies."""
        group, row = self._locate(index)
        sizes = self.specs[index].sizes(self.n_inputs, self.n_means)
        pairs = zip(group.weights, group.biases, sizes, strict=True)
        return [(w[row, :i, :o].clone(), b[row, 0, :o].clone()) for w, b, (i, o) in pairs]

    def member(self, index: int) -> Callable[[Tensor], Tensor]:
        """The member alone, as it is now: normalised inputs [B, O] to distribution parameters [B, P]."""
        layers, log_std = self.member_layers(index), self.member_log_std(index)

        def forward(x: Tensor) -> Tensor:
            for weight, bias in layers[:-1]:
                x = torch.addmm(bias, x, weight)
                x = fast_tanh_(x) if self.activation == "tanh" else x.relu_()
            x = torch.addmm(layers[-1][1], x, layers[-1][0])
            return with_log_std(x, log_std)

        return forward

    def member_log_std(self, index: int) -> Tensor:
        """The member's log_std [A], empty when the distribution has none."""
        return self.log_std[index, 0].clone()

    def _run(self, inputs: Tensor, saved: list[list[Tensor]] | None) -> Tensor:
        outputs = []
        for group in self.groups:
            n = group.members.stop - group.members.start
            x = inputs.expand(n, *inputs.shape) if inputs.dim() == 2 else inputs[group.members]
            layers = []
            last = len(group.weights) - 1
            for k, (weight, bias) in enumerate(zip(group.weights, group.biases, strict=True)):
                layers.append(x)
                x = torch.baddbmm(bias, x, weight)
                if k < last:
                    x = fast_tanh_(x) if self.activation == "tanh" else x.relu_()
            outputs.append(x)
            if saved is not None:
                saved.append(layers)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _with_log_std(self, means: Tensor) -> Tensor:
        if not self._n_log_std:
            return means
        return torch.cat([means, self.log_std.expand(-1, means.shape[1], -1)], -1)

    def _group_size(self, members: slice) -> int:
        widest: MemberSpec = self.specs[members.stop - 1]
        return len(self.specs[members]) * widest.footprint(self.n_inputs, self.n_means).params

    def _carve(self, members: slice, start: int) -> tuple[Group, int]:
        count = members.stop - members.start
        group = Group(members, [], [], [], [])
        for i, o in self.specs[members.stop - 1].sizes(self.n_inputs, self.n_means):
            for rows, values, gradients in ((i, group.weights, group.d_weights), (1, group.biases, group.d_biases)):
                end = start + count * rows * o
                values.append(self.flat[start:end].view(count, rows, o))
                gradients.append(self.grad[start:end].view(count, rows, o))
                start = end
        return group, start

    def _locate(self, index: int) -> tuple[Group, int]:
        group = next(g for g in self.groups if g.members.start <= index < g.members.stop)
        return group, index - group.members.start

    def _initialise(self, index: int, root_seed: int) -> None:
        """Uniform in +-1/sqrt(inputs) (LeCun), the last layer a tenth of it; each architecture has its own stream."""
        spec = self.specs[index]
        rng = SeedKey(root_seed, "init").numpy(spec.depth, spec.width, spec.seed)
        group, row = self._locate(index)
        sizes = spec.sizes(self.n_inputs, self.n_means)
        for k, (i, o) in enumerate(sizes):
            scale = (0.1 if k == len(sizes) - 1 else 1.7) / np.sqrt(i)
            values = rng.uniform(-scale, scale, (i, o)).astype(np.float32)
            group.weights[k][row, :i, :o] = torch.from_numpy(values).to(self.device)


def places_of(view: Tensor) -> Tensor:
    """The index into a flat vector of each entry of a contiguous view of it, on the CPU."""
    return torch.arange(view.numel()).view(view.shape).add(int(view.storage_offset()))


def fast_tanh_(x: Tensor) -> Tensor:
    """tanh in place as 2 * sigmoid(2x) - 1: within 1.2e-7 of torch.tanh and several times faster on CPUs."""
    return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


def plan_groups(specs: Sequence[MemberSpec], n_inputs: int, n_outputs: int) -> list[slice]:
    """Cuts sorted members into groups of one depth at the least cost of padding plus kernel launches."""

    def cost(i: int, j: int) -> float:
        widest = specs[j - 1]
        if specs[i].depth != widest.depth:
            return math.inf
        return _GROUP_OVERHEAD_MACS + (j - i) * widest.footprint(n_inputs, n_outputs).macs

    return cheapest_cuts(len(specs), cost)
