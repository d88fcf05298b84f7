"""The steps from an image or a vector to an action, as data: what torch, NumPy and exports compute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    """A step: a convolution of a map [inputs, height, width], with weight [outputs, inputs, kernel, kernel] and bias
    [outputs] under `name`."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    height: int
    width: int

    @property
    def after(self) -> tuple[int, int]:
        """(height, width) of the map that it makes."""
        more = 2 * self.padding - self.kernel
        return (self.height + more) // self.stride + 1, (self.width + more) // self.stride + 1

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of its tensors."""
        weight = (self.outputs, self.inputs, self.kernel, self.kernel)
        return {f"{self.name}.weight": weight, f"{self.name}.bias": (self.outputs,)}

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return math.prod(self.after) * self.outputs * self.inputs * self.kernel**2


@dataclass(frozen=True)
class Dense:
    """A step: a dense layer, with weight [inputs, outputs] and bias [outputs] under `name`; of a map all its numbers,
    channel by channel."""

    name: str
    inputs: int
    outputs: int

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of its tensors."""
        return {f"{self.name}.weight": (self.inputs, self.outputs), f"{self.name}.bias": (self.outputs,)}

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Activate:
    """A step: the activation of the student."""


@dataclass(frozen=True)
class Residual:
    """A step: what goes in, plus what the steps make of it."""

    steps: tuple[Step, ...]


Step = Conv | Dense | Activate | Residual


def weighted(steps: Sequence[Step]) -> Iterator[Conv | Dense]:
    """The steps that have weights, those inside of others too."""
    for step in steps:
        if isinstance(step, Residual):
            yield from weighted(step.steps)
        elif not isinstance(step, Activate):
            yield step
