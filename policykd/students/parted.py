"""What families whose members are trained one after the other share: named weights in one flat parameter vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor

from policykd.loss.distributions import Distribution
from policykd.spine.packing import Packing
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Footprint
from policykd.students.family import places_of
from policykd.students.spec import MemberSpec
from policykd.students.student import Parts


class PartedFamily(ABC):
    """The trainable students. Members are ordered by (depth, width, seed), whatever order they were asked for in.

    `flat` holds, member after member, the weights of `shapes_of`, then every log_std; `grad` has the same layout.
    """

    def __init__(
        self,
        specs: Iterable[MemberSpec],
        observed: int | Packing,
        distribution: Distribution,
        *,
        root_seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.specs = tuple(sorted(specs))
        self.observed, self.distribution = observed, distribution
        self.device = torch.device(device)
        self.n_means = distribution.n_means
        self._shapes = [self.shapes_of(spec) for spec in self.specs]
        n_log_std = distribution.n_params - distribution.n_means
        log_stds = len(self.specs) * n_log_std
        self._sizes = [int(np.prod(shape)) for shapes in self._shapes for shape in shapes.values()] + [log_stds]
        self.flat = torch.zeros(sum(self._sizes), device=self.device)
        self.grad = torch.zeros_like(self.flat)
        self._members, self.log_std = self.split(self.flat)  # [S, 1, A], empty when the distribution has none
        self._gradients, self.d_log_std = self.split(self.grad)
        for index, spec in enumerate(self.specs):
            rng = SeedKey(root_seed, "init").numpy(spec.depth, spec.width, spec.seed, *self.stream_of(spec))
            self._initialise(index, rng)

    def __len__(self) -> int:
        return len(self.specs)

    @abstractmethod
    def shapes_of(self, spec: MemberSpec) -> Mapping[str, tuple[int, ...]]:
        """The shape of every weight of a member, by name."""
        ...

    @abstractmethod
    def stream_of(self, spec: MemberSpec) -> tuple[int, ...]:
        """What else than depth, width and seed tells the random numbers of an architecture from those of others."""
        ...

    @abstractmethod
    def _initialise(self, index: int, rng: np.random.Generator) -> None:
        """Fills the member's weights."""
        ...

    def split(self, flat: Tensor) -> tuple[list[Parts], Tensor]:
        """The weights of every member by name, and every log_std [S, 1, A], as views of a vector in the family's
        layout, which may record a gradient."""
        pieces = iter(flat.split(self._sizes))
        found: list[Parts] = [
            {name: next(pieces).view(shape) for name, shape in shapes.items()} for shapes in self._shapes
        ]
        return found, next(pieces).view(len(self.specs), 1, self.distribution.n_params - self.n_means)

    def like(self, specs: Iterable[MemberSpec]) -> Self:
        """Another family of the same kind, with its own first weights."""
        return type(self)(specs, self.observed, self.distribution, device=self.device)

    def places(self, index: int) -> list[Tensor]:
        """Where the member's own weights and log_std stand in the flat vector."""
        own = [*self.parts(index).values(), self.log_std[index]]
        return [places_of(part).reshape(-1) for part in own]

    def footprint(self, index: int) -> Footprint:
        """The member's size."""
        return self.specs[index].footprint(self.observed, self.n_means)

    def parts(self, index: int, flat: Tensor | None = None) -> Parts:
        """The member's weights by name, as views of the family's vector, or of another of its layout."""
        return (self._members if flat is None else self.split(flat)[0])[index]

    def member_parts(self, index: int) -> Parts:
        """The member's weights by name, as copies."""
        return {name: part.clone() for name, part in self.parts(index).items()}

    def member_log_std(self, index: int) -> Tensor:
        """The member's log_std [A], empty when the distribution has none."""
        return self.log_std[index, 0].clone()

    def member_grad_norms(self) -> Tensor:
        """The gradient norm of each member [S]."""
        squares = self.d_log_std.square().sum((1, 2))
        for index, gradients in enumerate(self._gradients):
            for part in gradients.values():
                squares[index] += part.square().sum()
        return squares.sqrt()

    def scale_member_grads(self, factors: Tensor) -> None:
        """Multiplies each member's gradient by its factor [S]."""
        self.d_log_std.mul_(factors.view(-1, 1, 1))
        for index, gradients in enumerate(self._gradients):
            for part in gradients.values():
                part.mul_(factors[index])
