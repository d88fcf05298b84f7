"""The layers of a graph, each from flat rows [B, F] to flat rows; what they make of F, and what they cost. NumPy only.

An image is a row too: [height, width, channels] as environments give it, or channels first as `Conv` takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policykd.exports.gru import Gru
from policykd.spine.types import Footprint
from policykd.students.nodes import Nodes

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Normalise:
    """clip((x - mean) * scale, +-limit); mean, scale [F / repeat]. Entry i has those of i // repeat: the pixels of a
    channel, say, share their statistics."""

    mean: Floats
    scale: Floats
    limit: float
    repeat: int = 1


@dataclass(frozen=True, eq=False)
class Dense:
    """x @ weight + bias; weight [in, out], bias [out]. With a `scale` [out] weights are whole numbers of 8 bits times
    that, and it is (x @ whole) * scale + bias."""

    weight: Floats
    bias: Floats
    scale: Floats | None = None

    @property
    def whole(self) -> NDArray[np.int8]:
        """The whole numbers [in, out]."""
        assert self.scale is not None
        found: NDArray[np.int8] = np.rint(self.weight / self.scale).astype(np.int8)
        return found


@dataclass(frozen=True)
class Activate:
    """tanh or relu, entry by entry."""

    kind: Literal["tanh", "relu"]


@dataclass(frozen=True)
class ChannelsFirst:
    """An image [height, width, channels], flat, becomes [channels, height, width], flat."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True, eq=False)
class Conv:
    """Cross-correlation as torch's conv2d has it, with zeros around: images [I, height, width] become [O, *out], both
    flat; weight [O, I, kh, kw], bias [O]."""

    weight: Floats
    bias: Floats
    stride: int
    padding: int
    height: int
    width: int

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the result."""
        kh, kw = self.weight.shape[2:]
        rows, columns = self.height + 2 * self.padding - kh, self.width + 2 * self.padding - kw
        return rows // self.stride + 1, columns // self.stride + 1


@dataclass(frozen=True, eq=False)
class Residual:
    """x + layers(x), of one size."""

    layers: tuple[Stateless, ...]


@dataclass(frozen=True, eq=False)
class Parallel:
    """Of each part (begin, end, layers): columns begin to end through its layers. The results side by side."""

    parts: tuple[tuple[int, int, tuple[Stateless, ...]], ...]


@dataclass(frozen=True, eq=False)
class Tree:
    """A decision tree: what its leaf holds, for each row."""

    nodes: Nodes


Stateless = Normalise | Dense | Activate | ChannelsFirst | Conv | Residual | Parallel | Tree
Layer = Stateless | Gru


def walk(layers: tuple[Layer, ...], name: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer with its position, in their order, and those inside of it after it: 0, 1, 1_0, 1_1, 2 ... of a
    `Residual`; of a `Parallel` 1_0_0, 1_0_1, 1_1_0: the part, then the position in it."""
    for index, layer in enumerate(layers):
        at = f"{name}{index}"
        yield at, layer
        if isinstance(layer, Residual):
            yield from walk(layer.layers, f"{at}_")
        elif isinstance(layer, Parallel):
            for part, (_, _, inner) in enumerate(layer.parts):
                yield from walk(inner, f"{at}_{part}_")


def width_after(layers: tuple[Layer, ...], width: int, name: str = "") -> int:
    """How many numbers come out where `width` go in; ValueError, in one line, for a layer that does not fit."""
    for index, layer in enumerate(layers):
        width = _width_after(layer, width, f"{name}{index}")
    return width


def footprint_of(layers: tuple[Layer, ...]) -> Footprint:
    """Weights and biases, constants of normalisers and scales, multiply-accumulates of one row: O I kh kw h' w' of a
    convolution."""
    params, constants, macs = 0, 0, 0
    for _, layer in walk(layers):
        if isinstance(layer, Normalise):
            constants += layer.mean.size + layer.scale.size
        elif isinstance(layer, Dense | Conv):
            params += layer.weight.size + layer.bias.size
            constants += layer.scale.size if isinstance(layer, Dense) and layer.scale is not None else 0
            macs += layer.weight.size * (int(np.prod(layer.out)) if isinstance(layer, Conv) else 1)
        elif isinstance(layer, Tree):
            params += layer.nodes.footprint.params
        elif isinstance(layer, Gru):
            params, macs = params + layer.params, macs + layer.macs
    return Footprint(params, constants, macs)


def numbers_under_windows(layers: tuple[Layer, ...]) -> int:
    """What the convolutions of one row read, I kh kw h' w' each, all together: the memory that computing them takes."""
    found = [layer for _, layer in walk(layers) if isinstance(layer, Conv)]
    return sum(int(np.prod(layer.weight.shape[1:]) * np.prod(layer.out)) for layer in found)


def arrays_of(layers: tuple[Layer, ...]) -> dict[str, NDArray[Any]]:
    """Everything that was learned or measured, by its name in messages."""
    found: dict[str, NDArray[Any]] = {}
    for name, layer in walk(layers):
        if isinstance(layer, Dense | Conv):
            found |= {f"layer {name} weight": layer.weight, f"layer {name} bias": layer.bias}
        elif isinstance(layer, Gru):
            found |= layer.arrays
        elif isinstance(layer, Tree):
            found |= {f"layer {name} {part}": values for part, values in layer.nodes.arrays().items()}
        elif isinstance(layer, Normalise):
            of = "normaliser" if name == "0" else f"normaliser {name}"
            found |= {f"{of} mean": layer.mean, f"{of} scale": layer.scale}
    return found


def statistics_of(layers: tuple[Layer, ...], width: int) -> tuple[Floats, Floats]:
    """Mean and scale of each input, [F] each, by the normaliser that it comes to first, or by what a tree
    compares it with; 0 and 1 where there is neither."""
    mean, scale = np.zeros(width, np.float32), np.ones(width, np.float32)
    if not layers:
        return mean, scale
    first, *rest = layers
    if isinstance(first, Normalise):
        return np.repeat(first.mean, first.repeat), np.repeat(first.scale, first.repeat)
    if isinstance(first, Tree):
        return _statistics_of_tree(first.nodes, mean, scale)
    if isinstance(first, ChannelsFirst):
        shape = (first.channels, first.height, first.width)
        inner = statistics_of(tuple(rest), width)
        return (
            np.moveaxis(inner[0].reshape(shape), 0, -1).reshape(-1),
            np.moveaxis(inner[1].reshape(shape), 0, -1).reshape(-1),
        )
    if isinstance(first, Parallel):
        for begin, end, part in first.parts:
            mean[begin:end], scale[begin:end] = statistics_of(part, end - begin)
    return mean, scale


def _statistics_of_tree(nodes: Nodes, mean: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """About its thresholds, so that draws fall on both sides of them."""
    for feature in np.unique(nodes.feature):
        own = nodes.threshold[nodes.feature == feature].astype(np.float64)
        mean[feature] = own.mean()
        scale[feature] = 1.0 / max(float(own.std()), 0.1 * abs(float(own.mean())), 1e-3)
    return mean, scale


def _width_after(layer: Layer, width: int, name: str) -> int:
    if isinstance(layer, Normalise):
        fits = layer.mean.shape == layer.scale.shape == (layer.mean.size,) and layer.repeat >= 1
        _check(fits and layer.mean.size * layer.repeat == width, name, layer, width)
    elif isinstance(layer, Dense):
        fits = layer.weight.ndim == 2 and layer.bias.shape == layer.weight.shape[1:]
        _check(fits and len(layer.weight) == width, name, layer, width)
        return layer.bias.size
    elif isinstance(layer, ChannelsFirst):
        sizes = (layer.height, layer.width, layer.channels)
        _check(min(sizes) >= 1 and int(np.prod(sizes)) == width, name, layer, width)
    elif isinstance(layer, Conv):
        return _width_after_conv(layer, width, name)
    elif isinstance(layer, Gru):
        _check(layer.inputs.shape == (3 * layer.size, width), name, layer, width)
        return layer.size
    elif isinstance(layer, Tree):
        layer.nodes.check(width)
        return int(layer.nodes.value.shape[1])
    elif isinstance(layer, Residual):
        _check(width_after(layer.layers, width, f"{name}_") == width, name, layer, width)
    elif isinstance(layer, Parallel):
        ranges = [(begin, end) for begin, end, _ in layer.parts]
        _check(bool(ranges) and all(0 <= begin < end <= width for begin, end in ranges), name, layer, width)
        parts = enumerate(layer.parts)
        return sum(width_after(inner, end - begin, f"{name}_{part}_") for part, (begin, end, inner) in parts)
    return width


def _width_after_conv(layer: Conv, width: int, name: str) -> int:
    fits = layer.weight.ndim == 4 and layer.weight.size > 0 and layer.bias.shape == layer.weight.shape[:1]
    fits = fits and layer.stride >= 1 and layer.padding >= 0 and min(layer.height, layer.width) >= 1
    fits = fits and layer.weight.shape[1] * layer.height * layer.width == width and min(layer.out) >= 1
    _check(fits, name, layer, width)
    return layer.bias.size * int(np.prod(layer.out))


def _check(fits: bool, name: str, layer: Layer, width: int) -> None:
    if not fits:
        raise ValueError(f"layer {name}: a {type(layer).__name__} of {_sizes(layer)} does not take {width} numbers")


def _sizes(layer: Layer) -> str:
    """What `layer` is made for, in a message."""
    if isinstance(layer, Normalise):
        return f"mean {layer.mean.shape}, scale {layer.scale.shape}, repeat {layer.repeat}"
    if isinstance(layer, Dense):
        return f"weight {layer.weight.shape}, bias {layer.bias.shape}"
    if isinstance(layer, Conv):
        steps = f"stride {layer.stride}, padding {layer.padding}, on {layer.height} x {layer.width}"
        return f"weight {layer.weight.shape}, bias {layer.bias.shape}, {steps}"
    if isinstance(layer, Gru):
        return f"{layer.inputs.shape[1]} inputs"
    if isinstance(layer, Parallel):
        return f"columns {', '.join(f'{begin} to {end}' for begin, end, _ in layer.parts) or 'none'}"
    if isinstance(layer, Residual):
        return f"{len(layer.layers)} layers that keep the size"
    if isinstance(layer, Tree):
        return f"{len(layer.nodes)} inner nodes"
    return " x ".join(map(str, vars(layer).values()))
