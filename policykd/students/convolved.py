"""S students with convolutions trained at once: a plain loop over the members, whose kernels and maps differ in size,
and gradients by torch's autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.packing import Packing
from policykd.students.conv import conv_means
from policykd.students.encoders import ConvPlan, planned
from policykd.students.parted import PartedFamily
from policykd.students.spec import Activation, MemberSpec
from policykd.students.student import with_log_std


class ConvFamily(PartedFamily):
    """The trainable students, with the weights of `ConvPlan.shapes`."""

    def __init__(
        self,
        specs: Iterable[MemberSpec],
        packing: Packing,
        distribution: Distribution,
        *,
        activation: Activation = "relu",
        root_seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        specs = sorted(specs)
        self.packing, self.activation, self.n_means = packing, activation, distribution.n_means
        self._plans = {spec: self.plan_of(spec) for spec in specs}
        super().__init__(specs, packing, distribution, root_seed=root_seed, device=device)

    def plan(self, index: int) -> ConvPlan:
        """What the member computes."""
        return self._plans[self.specs[index]]

    def plan_of(self, spec: MemberSpec) -> ConvPlan:
        """What a member of this architecture computes."""
        return planned(spec, self.packing, self.n_means, self.activation)

    def like(self, specs: Iterable[MemberSpec]) -> Self:
        """Another family of the same kind, with its own first weights."""
        return type(self)(specs, self.packing, self.distribution, activation=self.activation, device=self.device)

    def shapes_of(self, spec: MemberSpec) -> dict[str, tuple[int, ...]]:
        """Those of its plan."""
        return self._plans[spec].shapes

    def stream_of(self, spec: MemberSpec) -> tuple[int, ...]:
        """Another than that of an mlp or a GRU, and one for each number of maps and kind of convolution."""
        return 2, spec.channels, int(spec.conv == "impala")

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Distribution parameters [S, B, P] for normalised features [B, F] shared by all, or [S, B, F] one each."""
        own = inputs.expand(len(self), *inputs.shape) if inputs.dim() == 2 else inputs
        return torch.stack([self.member(index)(x) for index, x in enumerate(own)])

    def outputs(self, flat: Tensor, inputs: Tensor, maps: Sequence[list[Tensor]] | None = None) -> Tensor:
        """Distribution parameters [S, B, P] for normalised features [B, F]; `flat` is a vector in the family's layout
        that may record a gradient. `maps`: a list for each member, which takes what its convolutions give."""
        members, log_std = self.split(flat)
        kept: Sequence[list[Tensor] | None] = maps or [None] * len(self)
        pairs = zip(members, kept, strict=True)
        means = [conv_means(self.plan(index), parts, inputs, own) for index, (parts, own) in enumerate(pairs)]
        return torch.stack([with_log_std(own, log_std[index, 0]) for index, own in enumerate(means)])

    def member(self, index: int) -> Callable[[Tensor], Tensor]:
        """The member alone: normalised features [B, F] to distribution parameters [B, P]."""
        plan, parts, log_std = self.plan(index), self.parts(index), self.log_std[index, 0]

        @torch.no_grad()
        def forward(x: Tensor) -> Tensor:
            return with_log_std(conv_means(plan, parts, x), log_std)

        return forward

    def _initialise(self, index: int, rng: np.random.Generator) -> None:
        """Uniform, behind relu in +-sqrt(6 / inputs) (He et al. 2015, arXiv:1502.01852), the head as an mlp's; residual
        blocks begin as what goes in, nearly; biases are zero."""
        plan = self.plan(index)
        gain = 2.45 if plan.activation == "relu" else 1.7
        last = list(plan.shapes)[-2]
        for name, part in self.parts(index).items():
            if not name.endswith(".weight"):
                continue
            small = name == last or name.endswith(".outer.weight")
            inputs = part[0].numel() if part.dim() == 4 else part.shape[0]
            scale = (0.1 if small else gain) / np.sqrt(inputs)
            part.copy_(torch.from_numpy(rng.uniform(-scale, scale, tuple(part.shape)).astype(np.float32)))
