"""Which convolutions an image of some size gets.

After Mnih et al. 2015 (doi:10.1038/nature14236, "nature") or Espeholt et al. 2018 (arXiv:1802.01561, "impala"). Where
they differ from the papers: they have few channels, and sizes that follow the image, so that the map behind them is
small, since of a compact student the dense layer behind it is the largest part; impala's convolutions have stride 2 in
the place of max-pooling, and one residual block each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SMALL = 4  # sides of the last map at most


@dataclass(frozen=True)
class Convolution:
    """`channels` maps of a square kernel. `residual`: behind it x + conv(act(conv(act(x)))) with kernels of 3."""

    channels: int
    kernel: int
    stride: int
    padding: int
    residual: bool = False


def nature(height: int, width: int, channels: int) -> tuple[Convolution, ...]:
    """Mnih's kernels, 8 with stride 4, 4 with 2 and 3 with 1, where both sides are 36 or more; from 16 on 4 with 2, 3
    with 2 and 3 with 1; below it 3 with 1, 3 with 2 and 3 with 1, padded. The first has `channels`, the others twice as
    many. Where a side of the map would then be above 4, the third has stride 2, and more of stride 2, padded, follow.
    """
    side = min(height, width)
    first = ((8, 4, 0), (4, 2, 0)) if side >= 36 else ((4, 2, 0), (3, 2, 0)) if side >= 16 else ((3, 1, 1), (3, 2, 1))
    found: list[Convolution] = []
    high, wide = height, width
    for kernel, stride, padding in first:
        found.append(Convolution(channels if not found else 2 * channels, kernel, stride, padding))
        high, wide = ((n + 2 * padding - kernel) // stride + 1 for n in (high, wide))
    padding = 0 if side >= 16 else 1
    stride = 1 if max(high, wide) + 2 * padding - 2 <= _SMALL else 2
    found.append(Convolution(2 * channels, 3, stride, padding))
    high, wide = ((n + 2 * padding - 3) // stride + 1 for n in (high, wide))
    return (*found, *_halving(high, wide, 2 * channels, residual=False))


def impala(height: int, width: int, channels: int) -> tuple[Convolution, ...]:
    """Kernels of 3 with stride 2, padded, and a residual block behind each, until no side of the map is above 4, and
    one at least. The first has `channels`, the others twice as many."""
    first = Convolution(channels, 3, 2, 1, residual=True)
    return (first, *_halving((height + 1) // 2, (width + 1) // 2, 2 * channels, residual=True))


def _halving(height: int, width: int, channels: int, *, residual: bool) -> Iterator[Convolution]:
    while max(height, width) > _SMALL:
        yield Convolution(channels, 3, 2, 1, residual)
        height, width = (height + 1) // 2, (width + 1) // 2
