"""Interval arithmetic on arrays: what a value can be, element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Positive = Callable[[Floats], Floats]
"""A linear function none of whose coefficients is negative."""


@dataclass(frozen=True, eq=False)
class Interval:
    """The closed interval each element lies in; an end may be infinite.

    Attributes:
        low, high: Arrays of one shape, float64.
    """

    low: Floats
    high: Floats

    @classmethod
    def of(cls, low: ArrayLike, high: ArrayLike) -> Interval:
        """Returns the interval between two arrays, broadcast to one shape."""
        ends = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
        return cls(np.asarray(ends[0]), np.asarray(ends[1]))

    @classmethod
    def around(cls, radius: ArrayLike) -> Interval:
        """Returns the interval that reaches `radius` to both sides of 0."""
        wide = np.asarray(radius, np.float64)
        return cls(-wide, wide)

    @classmethod
    def anything(cls, shape: tuple[int, ...]) -> Interval:
        """Returns the whole line for every element."""
        return cls(np.full(shape, -np.inf), np.full(shape, np.inf))

    @property
    def finite(self) -> bool:
        """Returns whether every end is finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    @property
    def center(self) -> Floats:
        """Returns the middle; no number where both ends are infinite."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.low + self.high) / 2)

    @property
    def radius(self) -> Floats:
        """Returns half the length."""
        return (self.high - self.low) / 2

    @property
    def magnitude(self) -> Floats:
        """Returns the largest absolute value."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def __add__(self, other: Interval) -> Interval:
        return Interval.of(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval.of(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        ends = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return _hull(ends)

    def __truediv__(self, other: Interval) -> Interval:
        """Returns the quotients; anything where the divisor may be 0."""
        crosses = (other.low <= 0) & (other.high >= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = Interval(
                np.where(crosses, -np.inf, 1 / other.high), np.where(crosses, np.inf, 1 / other.low)
            )
        return self * inverse

    def shifted(self, by: ArrayLike) -> Interval:
        """Returns both ends moved by an array."""
        far = np.asarray(by, np.float64)
        return Interval.of(self.low + far, self.high + far)

    def mapped(self, function: Positive) -> Interval:
        """Returns what a function makes that never falls as its operand grows."""
        return Interval(function(self.low), function(self.high))

    def meet(self, other: Interval) -> Interval:
        """Returns what lies in both; where rounding has parted them, the point between."""
        low, high = np.maximum(self.low, other.low), np.minimum(self.high, other.high)
        return Interval.of(np.minimum(low, high), np.maximum(low, high))

    def join(self, other: Interval) -> Interval:
        """Returns the least interval that holds both."""
        return Interval.of(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def with_zero(self) -> Interval:
        """Returns the least interval that holds this one and 0."""
        return Interval(np.minimum(self.low, 0), np.maximum(self.high, 0))

    def clipped(self, low: ArrayLike, high: ArrayLike) -> Interval:
        """Returns both ends held within `low` and `high`."""
        return Interval(
            np.asarray(np.clip(self.low, low, high)), np.asarray(np.clip(self.high, low, high))
        )


def extremes(function: Positive, x: Interval, turns: Sequence[ArrayLike]) -> Interval:
    """Returns the extremes over `x` of a function that turns at most at the places `turns`."""
    places = [x.low, x.high, *(np.clip(turn, x.low, x.high) for turn in turns)]
    return _hull([function(place) for place in places])


def _hull(arrays: Sequence[Floats]) -> Interval:
    return Interval(np.minimum.reduce(arrays), np.maximum.reduce(arrays))


def _times(a: Floats, b: Floats) -> Floats:
    """Returns products in which 0 times infinity is 0: an end is a limit, not a number."""
    with np.errstate(invalid="ignore"):
        product = np.asarray(a * b)
    return np.where(np.isnan(product), 0.0, product)
