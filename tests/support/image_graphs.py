"""Graphs with images, by hand, with random weights: small ones, in which every kind of layer occurs."""

from __future__ import annotations

from typing import Any

import numpy as np

from policykd.exports.graph import (
    Activate,
    ChannelsFirst,
    Conv,
    Dense,
    Feed,
    Graph,
    Head,
    Layer,
    Normalise,
    Parallel,
    Port,
    Residual,
)
from policykd.exports.interface import random_noise
from policykd.spine.actions import ActionMap

RELU, TANH = Activate("relu"), Activate("tanh")


def numbers(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Any:
    return (scale * rng.normal(size=shape)).astype(np.float32)


def conv(
    rng: np.random.Generator, shape: tuple[int, int, int, int], stride: int, padding: int, image: tuple[int, int]
) -> Conv:
    """weight [O, I, kh, kw] of that shape, on images of that height and width."""
    weight = numbers(rng, *shape, scale=float(np.prod(shape[1:])) ** -0.5)
    return Conv(weight, numbers(rng, shape[0], scale=0.3), stride, padding, *image)


def dense(rng: np.random.Generator, inputs: int, outputs: int) -> Dense:
    return Dense(numbers(rng, inputs, outputs, scale=inputs**-0.5), numbers(rng, outputs, scale=0.3))


def normalise(rng: np.random.Generator, n: int, repeat: int = 1, limit: float = 1.5, unit: float = 1.0) -> Normalise:
    mean, std = unit * rng.uniform(0.3, 0.7, n), unit * rng.uniform(0.2, 0.4, n)
    return Normalise(mean.astype(np.float32), (1 / std).astype(np.float32), limit, repeat)


def image() -> Graph:
    """uint8 pixels with a mask: two convolutions, the second with zeros around and a long sum; Discrete."""
    rng = np.random.default_rng(0)
    layers = (
        ChannelsFirst(12, 12, 3),
        normalise(rng, 3, repeat=144, unit=255.0),
        conv(rng, (32, 3, 4, 4), 2, 0, (12, 12)),
        RELU,
        conv(rng, (6, 32, 3, 3), 1, 1, (5, 5)),
        TANH,
        dense(rng, 150, 5),
    )
    port = Port("obs", (), (12, 12, 3), "uint8")
    return Graph(
        (port,), layers, Head("choices", 5, (5,)), ActionMap("discrete", start=(2,)), True, with_distribution=True
    )


def several() -> Graph:
    """A camera, numbers and a choice, each through layers of its own, then common ones; a squashed Gaussian."""
    rng = np.random.default_rng(1)
    camera: tuple[Layer, ...] = (
        ChannelsFirst(12, 12, 2),
        normalise(rng, 2, repeat=144, unit=255.0),
        conv(rng, (4, 2, 3, 3), 2, 1, (12, 12)),
        Residual((RELU, conv(rng, (4, 4, 3, 3), 1, 1, (6, 6)))),
        RELU,
    )
    parts = ((0, 288, camera), (288, 291, (normalise(rng, 3), dense(rng, 3, 6), TANH)), (291, 295, ()))
    layers = (Parallel(parts), dense(rng, 144 + 6 + 4, 8), RELU, dense(rng, 8, 2))
    ports = (
        Port("camera", ("camera",), (12, 12, 2), "uint8"),
        Port("state", ("state",), (3,), "float32"),
        Port("mode", ("mode",), (), "int64", (4,), (1,)),
    )
    head = Head("numbers", 2, squash=True, log_std=numbers(rng, 2, scale=0.3))
    action = ActionMap("unscale", (2,), "float32", (-1.0, 0.0), (1.0, 3.0))
    return Graph(ports, layers, head, action, stochastic=True, with_distribution=True)


def residual() -> Graph:
    """Two blocks as IMPALA has them, one inside the other, on an image with channels first; bits."""
    rng = np.random.default_rng(2)

    def step() -> Conv:
        return conv(rng, (3, 3, 3, 3), 1, 1, (12, 12))

    inner = Residual((RELU, step(), RELU, step()))
    layers = (
        normalise(rng, 3, repeat=144),
        Residual((RELU, step(), inner, TANH)),
        Residual((RELU, step())),
        RELU,
        dense(rng, 432, 3),
    )
    port = Port("obs", (), (3, 12, 12), "float32")
    return Graph((port,), layers, Head("bits", 3), ActionMap("multi_binary", (3,), "int8"))


def odd() -> Graph:
    """Images and kernels that are not square, strides that leave a rest, more zeros than the kernel needs; numbers."""
    rng = np.random.default_rng(3)
    layers = (
        Parallel(((0, 1, ()), (1, 109, (normalise(rng, 1, repeat=108), conv(rng, (5, 1, 3, 2), 2, 1, (12, 9)))))),
        Parallel(((1, 151, (RELU, conv(rng, (2, 5, 1, 4), 3, 3, (6, 5)))), (0, 1, (TANH,)), (0, 30, ()))),
        dense(rng, 2 * 4 * 3 + 31, 2),
    )
    ports = (Port("x", ("x",), (), "float64"), Port("map", ("map",), (12, 9), "int16"))
    return Graph(ports, layers, Head("numbers", 2, log_std=numbers(rng, 2)), ActionMap(
        "clip", (1, 2), "float32", (-0.5, -np.inf), (0.5, np.inf)))  # fmt: skip


GRAPHS = {graph.__name__: graph() for graph in (image, several, residual, odd)}


def feed_of(graph: Graph, n: int = 64) -> Feed:
    """Observations in and around the units of the normalisers, masks, noise."""
    rng = np.random.default_rng(9)
    parts = []
    for port in graph.ports:
        shape, whole = (n, *port.shape), {"uint8": (0, 256), "int16": (-2, 4), "int64": (0, 6)}.get(port.dtype)
        part = rng.uniform(-1, 2, shape) if whole is None else rng.integers(*whole, shape)
        parts.append(part.astype(port.dtype))
    mask = None
    if graph.masked:
        mask = rng.random((n, graph.head.mask_size)) < 0.5
        mask[np.arange(n), rng.integers(graph.head.mask_size, size=n)] = True
    noise = random_noise(graph.head.law, (n, graph.head.size), rng) if graph.stochastic else None
    return Feed(tuple(parts), mask, noise)
