"""What a student of images and of mixed observations is made of, as data: an encoder for each entry of its observation,
side by side, then dense layers. NumPy alone suffices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from policykd.spine.actions import sizes_of
from policykd.spine.packing import Leaf, Packing
from policykd.spine.types import Footprint
from policykd.students.convolutions import Convolution, impala, nature
from policykd.students.steps import Activate, Conv, Dense, Residual, Shape, Step, weighted

if TYPE_CHECKING:
    from policykd.students.spec import Activation, MemberSpec

_MOST_NUMBERS = 2**25  # of one map, or of the patches of one convolution, of a file that is read
_MOST_CONVOLUTIONS = 64


@dataclass(frozen=True)
class Encoder:
    """Of the features [begin, end) of one leaf: convolutions of an image (height, width, channels), whose channels may
    come last; or, of anything else, a dense layer of `units`, and the activation."""

    name: str
    begin: int
    end: int
    image: tuple[int, int, int] | None = None
    channels_last: bool = False
    convolutions: tuple[Convolution, ...] = ()
    units: int = 0

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What it does with its features, an image as a map with its channels first."""
        return tuple(step for stage in self.stages for step in stage)

    @cached_property
    def stages(self) -> tuple[tuple[Step, ...], ...]:
        """The steps of each of its convolutions, with all that comes behind it: the activation, behind a residual block
        only where it is the last."""
        if self.image is None:
            return ((Dense(self.name, self.end - self.begin, self.units), Activate()),)
        height, width, channels = self.image
        stages: list[tuple[Step, ...]] = []
        for k, c in enumerate(self.convolutions):
            name = f"{self.name}.convolutions.{k}"
            first = Conv(name, channels, c.channels, c.kernel, c.stride, c.padding, height, width)
            (height, width), channels = first.after, c.channels
            steps: list[Step] = [first]
            if c.residual:
                inner = Conv(f"{name}.inner", channels, channels, 3, 1, 1, height, width)
                outer = Conv(f"{name}.outer", channels, channels, 3, 1, 1, height, width)
                steps.append(Residual((Activate(), inner, Activate(), outer)))
            if not c.residual or k + 1 == len(self.convolutions):
                steps.append(Activate())
            stages.append(tuple(steps))
        return tuple(stages)

    @property
    def maps(self) -> list[tuple[int, int]]:
        """(height, width) of what each convolution makes of the image."""
        return [stage[0].after for stage in self.stages if isinstance(stage[0], Conv)]

    @property
    def size(self) -> int:
        """How many numbers it makes."""
        if self.image is None:
            return self.units
        last = [step for step in self.steps if isinstance(step, Conv)][-1]
        return last.outputs * math.prod(last.after)

    @property
    def constants(self) -> int:
        """Means of its normaliser: one a channel, or one a feature."""
        return self.end - self.begin if self.image is None else self.image[2]

    def to_json(self) -> dict[str, Any]:
        """Its entry in the header of the student's file."""
        if self.image is None:
            return {"units": self.units}
        own = [vars(c) for c in self.convolutions]
        return {"layout": "hwc" if self.channels_last else "chw", "convolutions": own}


@dataclass(frozen=True)
class ConvPlan:
    """A whole student: `encoders` side by side, and `tail`, the dense layers behind them."""

    encoders: tuple[Encoder, ...]
    tail: tuple[Step, ...]
    activation: Activation

    @property
    def kind(self) -> Literal["cnn", "multi"]:
        """cnn: of one image; multi: of anything else."""
        return "cnn" if len(self.encoders) == 1 and self.encoders[0].image else "multi"

    @property
    def constants(self) -> int:
        """Means of its normaliser."""
        return sum(encoder.constants for encoder in self.encoders)

    @property
    def outputs(self) -> int:
        """Logits or means that it makes."""
        return self._dense[-1].outputs

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Of every weight and bias, by name."""
        return {name: shape for step in self._steps for name, shape in step.shapes.items()}

    @property
    def footprint(self) -> Footprint:
        """Parameters, numbers of the normaliser and multiply-accumulates per action."""
        macs = sum(step.macs for step in self._steps)
        return Footprint(sum(math.prod(shape) for shape in self.shapes.values()), 2 * self.constants, macs)

    def to_json(self) -> dict[str, Any]:
        """The architecture in the header of the student's file."""
        layers = [[step.inputs, step.outputs] for step in self._dense]
        encoders = [encoder.to_json() for encoder in self.encoders]
        return {"activation": self.activation, "encoders": encoders, "layers": layers}

    @classmethod
    def from_json(cls, doc: dict[str, Any], packing: Packing) -> ConvPlan:
        """The inverse of `to_json`, for these observations; ValueError where they do not fit."""
        entries, layers = doc["encoders"], [sizes_of(pair) for pair in doc["layers"][:_MOST_CONVOLUTIONS]]
        if len(entries) != len(packing.leaves):
            raise ValueError(f"{len(entries)} encoders for {len(packing.leaves)} entries of the observation")
        if doc["activation"] not in ("tanh", "relu"):
            raise ValueError("activation is not known")
        begin, encoders = 0, []
        for index, (leaf, entry) in enumerate(zip(packing.leaves, entries, strict=True)):
            encoders.append(_read(f"encoders.{index}", leaf, begin, entry))
            begin += leaf.n_features
        before = sum(encoder.size for encoder in encoders)
        for inputs, outputs in layers:
            if inputs != before or not outputs:
                raise ValueError(f"layers {layers[:9]} do not fit together, or not behind the encoders")
            before = outputs
        return cls(tuple(encoders), _tail([layers[0][0], *[o for _, o in layers]]), doc["activation"])

    @property
    def _dense(self) -> list[Dense]:
        return [step for step in self.tail if isinstance(step, Dense)]

    @property
    def _steps(self) -> list[Conv | Dense]:
        return [*weighted([step for encoder in self.encoders for step in encoder.steps]), *weighted(self.tail)]


def planned(spec: MemberSpec, packing: Packing, n_outputs: int, activation: Activation = "relu") -> ConvPlan:
    """The student of this architecture for these observations."""
    begin, encoders = 0, []
    for index, leaf in enumerate(packing.leaves):
        name, end = f"encoders.{index}", begin + leaf.n_features
        if is_picture(leaf):
            image = _image(leaf)
            own = (impala if spec.conv == "impala" else nature)(*image[:2], spec.channels)
            encoders.append(Encoder(name, begin, end, image, channels_last(leaf.shape), own))
        else:
            encoders.append(Encoder(name, begin, end, units=spec.width))
        begin = end
    sizes = [sum(encoder.size for encoder in encoders), *[spec.width] * spec.depth, n_outputs]
    return ConvPlan(tuple(encoders), _tail(sizes), activation)


def is_picture(leaf: Leaf) -> bool:
    """Whether the leaf is encoded by convolutions: numbers in three dimensions."""
    return len(leaf.shape) == 3 and not leaf.nvec


def channels_last(shape: Shape) -> bool:
    """Whether an image of this shape has its channels last: as stable-baselines3 decides it, the smallest dimension has
    the channels, the first of several, and only where it is the first do they come first."""
    return shape.index(min(shape)) != 0


def normaliser_places(packing: Packing) -> NDArray[np.intp]:
    """[F] which number of the normaliser is each feature's: one a channel for images, one a feature for all else."""
    places, before = [], 0
    for leaf in packing.leaves:
        own = np.arange(leaf.n_features)
        if is_picture(leaf):
            height, width, channels = _image(leaf)
            own = own % channels if channels_last(leaf.shape) else own // (height * width)
        places.append(before + own)
        before += int(own[-1]) + 1
    return np.concatenate(places)


def _tail(sizes: Sequence[int]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for k, (inputs, outputs) in enumerate(pairwise(sizes)):
        steps += [Activate()] if k else []
        steps.append(Dense(f"layers.{k}", inputs, outputs))
    return tuple(steps)


def _image(leaf: Leaf) -> tuple[int, int, int]:
    """(height, width, channels)."""
    a, b, c = leaf.shape
    return (a, b, c) if channels_last(leaf.shape) else (b, c, a)


def _read(name: str, leaf: Leaf, begin: int, entry: dict[str, Any]) -> Encoder:
    """The encoder that a file's header describes; ValueError where it is none, or none for this leaf."""
    end = begin + leaf.n_features
    if not is_picture(leaf):
        (units,) = sizes_of([entry["units"]])
        return Encoder(name, begin, end, units=units)
    if entry["layout"] != ("hwc" if channels_last(leaf.shape) else "chw") or leaf.size > _MOST_NUMBERS:
        raise ValueError(f"{name}: not the layout of an image of shape {leaf.shape}")
    found = []
    for c in entry["convolutions"][:_MOST_CONVOLUTIONS]:
        channels, kernel, stride, padding = sizes_of([c[key] for key in ("channels", "kernel", "stride", "padding")])
        if not (channels and kernel and stride and padding < kernel) or not isinstance(c["residual"], bool):
            raise ValueError(f"{name}: a convolution that cannot be")
        found.append(Convolution(channels, kernel, stride, padding, c["residual"]))
    encoder = Encoder(name, begin, end, _image(leaf), channels_last(leaf.shape), tuple(found))
    for step in weighted(encoder.steps):
        assert isinstance(step, Conv)
        n = math.prod(step.after)
        if min(step.after) < 1 or n * max(step.outputs, step.inputs * step.kernel**2) > _MOST_NUMBERS:
            raise ValueError(f"{name}: a convolution that does not fit its image")
    if not found:
        raise ValueError(f"{name}: an image without convolutions")
    return encoder
