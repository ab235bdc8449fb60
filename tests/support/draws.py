"""Random numbers that are the same under every version of NumPy and Python.

Number k of a stream is a hash of its place, splitmix64 (Steele, Lea and Flood, Fast splittable pseudorandom
number generators, 2014), so there is no state and no order.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Draws:
    """Streams of one seed: each call goes on where the last one stopped."""

    def __init__(self, seed: int) -> None:
        self._next = seed << 40

    def bits(self, count: int) -> npt.NDArray[np.uint64]:
        place = np.arange(self._next + 1, self._next + count + 1, dtype=np.uint64)
        self._next += count
        mixed = place * _STEP
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))

    def uniform(self, *shape: int) -> Floats:
        """Multiples of 2^-53 in 0 <= x < 1."""
        return (self.bits(math.prod(shape)) >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53

    def normal(self, *shape: int) -> Floats:
        """Standard normal (Box and Muller), rounded so that the last digit of a logarithm does not matter."""
        radius = np.sqrt(-2 * np.log(1 - self.uniform(*shape)))
        return np.round(radius * np.cos(2 * np.pi * self.uniform(*shape)), 8)

    def integers(self, high: int, *shape: int) -> npt.NDArray[np.int64]:
        """Whole numbers 0 <= k < high."""
        return np.floor(self.uniform(*shape) * high).astype(np.int64)
