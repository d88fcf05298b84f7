"""The random numbers of GridRaid: a counter and a mixer of 32 bits, the same in any language.

The counter grows by 0x9E3779B9; a number is the mixer's value of the counter (splitmix32, with the multipliers of
C. Wellons' "lowbias32" search). Scalars are Python integers, arrays are uint32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAMMA = 0x9E3779B9
_FIRST, _SECOND = 0x21F0AAAD, 0x735A2D97
_BITS = 0xFFFFFFFF


def mix(value: int) -> int:
    """32 bits in, 32 bits out, one to one."""
    value ^= value >> 16
    value = value * _FIRST & _BITS
    value ^= value >> 15
    value = value * _SECOND & _BITS
    return value ^ value >> 15


def expand(seed: int) -> int:
    """The counter [32 bits] that `seed` starts with; only its lowest 64 bits count."""
    low, high = seed & _BITS, seed >> 32 & _BITS
    return mix(mix(low ^ 0x6A09E667) ^ high)


class Generator:
    """The generator of one game. `state` is its counter, all there is to know of it."""

    def __init__(self, seed: int) -> None:
        self.state = expand(seed)

    def next(self) -> int:
        """The next number of 32 bits."""
        self.state = self.state + GAMMA & _BITS
        return mix(self.state)

    def below(self, n: int) -> int:
        """A number from 0 to n - 1, for n up to 65536: the upper 16 bits times n, without its lower 16 bits."""
        return (self.next() >> 16) * n >> 16


def draw(states: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """The next `count` numbers of each generator: counters [K] give [K, count]. The counters themselves stay."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
    value = states[:, None] + steps.astype(np.uint32)
    value ^= value >> np.uint32(16)
    value *= np.uint32(_FIRST)
    value ^= value >> np.uint32(15)
    value *= np.uint32(_SECOND)
    value ^= value >> np.uint32(15)
    return value


def advance(states: NDArray[np.uint32], counts: NDArray[Any]) -> NDArray[np.uint32]:
    """The counters [K] after so many numbers [K] each."""
    return states + (counts.astype(np.uint64) * np.uint64(GAMMA)).astype(np.uint32)


def below(numbers: NDArray[np.uint32], n: NDArray[Any] | int) -> NDArray[np.uint32]:
    """Numbers of 32 bits as numbers from 0 to n - 1, as `Generator.below` makes them."""
    return (numbers >> np.uint32(16)) * np.asarray(n, np.uint32) >> np.uint32(16)
