"""One architecture of a family, as data, and all those that a configuration describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from policykd.spine.config.loss import LossConfig
from policykd.spine.config.student import StudentConfig
from policykd.spine.packing import Packing
from policykd.spine.types import Footprint
from policykd.students.encoders import planned
from policykd.students.nodes import footprint_of

Activation = Literal["tanh", "relu"]
Kind = Literal["mlp", "gru", "cnn", "multi", "tree"]
Conv = Literal["", "nature", "impala"]
# The axes of an architecture, of each kind: fields of `MemberSpec`.
_AXES: dict[Kind, tuple[str, ...]] = {
    "mlp": ("depth", "width"),
    "gru": ("depth", "width"),
    "cnn": ("depth", "width", "channels"),
    "multi": ("depth", "width", "channels"),
    "tree": ("leaves",),
}


@dataclass(frozen=True, order=True)
class MemberSpec:
    """One architecture of the family; `seed` numbers members that differ by their initial weights only.

    `kind` mlp: `depth` hidden layers of `width` units. gru: one recurrent layer of `width` units (depth 1), and a
    linear head. cnn, multi: convolutions of the kind `conv` with `channels` maps and more, and of what is no image a
    layer of `width` units, before the layers of an mlp. tree: at most `leaves` leaves, and no layers.
    """

    depth: int
    width: int
    seed: int = 0
    kind: Kind = "mlp"
    channels: int = 0
    conv: Conv = ""
    temperature: float | None = None  # of its loss, where members differ in it
    alpha: float | None = None  # share of its soft loss, where members differ in it
    leaves: int = 0

    @property
    def architecture(self) -> tuple[int, ...]:
        """All but seed and kind: one number for each axis, (depth, width)."""
        return tuple(getattr(self, axis) for axis in _AXES[self.kind])

    @property
    def name(self) -> str:
        """`d1-w8-s0`: each axis by its first letter, then the seed."""
        axes = [f"{axis[0]}{size}" for axis, size in zip(_AXES[self.kind], self.architecture, strict=True)]
        return "-".join([*axes, *self.taught, f"s{self.seed}"])

    @property
    def taught(self) -> list[str]:
        """What of the loss is the member's own: `t2`, `a0.5`."""
        own = {"t": self.temperature, "a": self.alpha}
        return [f"{letter}{value:g}" for letter, value in own.items() if value is not None]

    @property
    def row(self) -> list[int]:
        """Axes and seed, as checkpoints hold them."""
        return [*self.architecture, self.seed]

    @classmethod
    def from_row(cls, row: Sequence[int], kind: Kind, conv: Conv = "") -> MemberSpec:
        """The inverse of `row`."""
        axes: dict[str, int] = dict(zip((*_AXES[kind], "seed"), row, strict=True))
        return cls(**{"depth": 0, "width": 0, **axes}, kind=kind, conv=conv)

    def within(self, other: MemberSpec) -> bool:
        """Whether it is as deep as the other, and no larger along any axis."""
        pairs = zip(self.architecture, other.architecture, strict=True)
        return self.depth == other.depth and all(own <= theirs for own, theirs in pairs)

    def sizes(self, n_inputs: int, n_outputs: int) -> list[tuple[int, int]]:
        """(inputs, outputs) of each dense layer of an MLP."""
        hidden = [self.width] * self.depth
        return list(zip([n_inputs, *hidden], [*hidden, n_outputs], strict=True))

    def footprint(self, observed: int | Packing, n_outputs: int) -> Footprint:
        """Parameters and multiply-accumulates, known before training starts, for this many inputs, or for observations
        of this packing, which convolutions need to know."""
        if self.kind in ("cnn", "multi"):
            assert isinstance(observed, Packing)
            return planned(self, observed, n_outputs).footprint
        if self.kind == "tree":
            return footprint_of(self.leaves, n_outputs)
        n_inputs = observed if isinstance(observed, int) else observed.n_features
        if self.kind == "gru":
            macs = 3 * self.width * (n_inputs + self.width) + self.width * n_outputs
            return Footprint(params=macs + 4 * self.width + n_outputs, constants=2 * n_inputs, macs=macs)
        sizes = self.sizes(n_inputs, n_outputs)
        macs = sum(i * o for i, o in sizes)
        return Footprint(params=macs + sum(o for _, o in sizes), constants=2 * n_inputs, macs=macs)


def kind_of(config: StudentConfig) -> Kind:
    """The kind of the members that this section describes."""
    return "mlp" if config.kind == "linear" else config.kind


def conv_of(config: StudentConfig) -> Conv:
    """The kind of their convolutions; empty where they have none."""
    return config.conv if kind_of(config) in ("cnn", "multi") else ""


def members_of(config: StudentConfig, loss: LossConfig | None = None) -> list[MemberSpec]:
    """Every width x depth x channels x seed, without repetition (a linear policy has no width); and where `loss` lists
    several, x temperature x alpha. Of trees every number of leaves x seed."""
    if config.kind == "tree":
        return _trees(config)
    widths = config.width if isinstance(config.width, list) else [config.width]
    depths = config.depth if isinstance(config.depth, list) else [config.depth]
    kind = kind_of(config)
    images = kind in ("cnn", "multi")
    conv = conv_of(config)
    channels = config.channels if isinstance(config.channels, list) else [config.channels]
    specs = set()
    temperatures = loss.temperature if loss and isinstance(loss.temperature, list) else [None]
    alphas = loss.alpha if loss and isinstance(loss.alpha, list) else [None]
    for width, depth, maps, seed in product(widths, depths, channels if images else [0], range(config.seeds)):
        assert isinstance(width, int) and isinstance(maps, int)
        used = depth or kind == "multi"  # by hidden layers, or by the encoders of vectors
        spec = MemberSpec(depth, width if used else 0, seed, kind, maps, conv)
        specs |= {replace(spec, temperature=t, alpha=a) for t, a in product(temperatures, alphas)}
    return sorted(specs)


def _trees(config: StudentConfig) -> list[MemberSpec]:
    every, specs = config.leaves if isinstance(config.leaves, list) else [config.leaves], set()
    for leaves, seed in product(every, range(config.seeds)):
        assert isinstance(leaves, int)  # settled by `policykd.learn.setup.defaults`
        specs.add(MemberSpec(0, 0, seed, "tree", leaves=leaves))
    return sorted(specs)
