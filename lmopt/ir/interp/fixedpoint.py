"""Fixed-point arithmetic as LiteRT's kernels do it: real factors as 31-bit mantissa and shift.

Everything runs on int64 arrays that hold int32 values, and wraps where C++ would.

Source: LiteRT, tflite/kernels/internal/quantization_util.cc and common.cc (the build without
TFLITE_SINGLE_ROUNDING); gemmlowp, fixedpoint/fixedpoint.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Multiplier:
    """A real factor, or one per channel: mantissa * 2 ** (shift - 31).

    Attributes:
        mantissa: In [2**30, 2**31), or 0.
        shift: Power of two; negative shifts right.
    """

    mantissa: Ints
    shift: Ints

    @classmethod
    def of(cls, real: float | Sequence[float]) -> Multiplier:
        """Returns the factor with its mantissa rounded half away from zero to 31 bits."""
        if isinstance(real, (int, float)):
            mantissa, shift = _mantissa_and_shift(real)
            return cls(np.asarray(mantissa, np.int64), np.asarray(shift, np.int64))
        pairs = np.array([_mantissa_and_shift(value) for value in real], np.int64)
        return cls(pairs[:, 0], pairs[:, 1])

    def apply(self, x: Ints) -> Ints:
        """Returns `x` times the factor, rounded twice.

        First the high half of the doubled product, halves up (after a left shift), then the right
        shift, halves away from zero.
        """
        left = np.maximum(self.shift, 0)
        high = doubling_high_product(_wrap(x << left), self.mantissa)
        return divide_by_power(high, np.maximum(-self.shift, 0))


def _mantissa_and_shift(real: float) -> tuple[int, int]:
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        mantissa //= 2
        shift += 1
    return (mantissa, shift) if shift >= -31 else (0, 0)


def _wrap(x: Ints) -> Ints:
    return x.astype(np.int32).astype(np.int64)


def doubling_high_product(a: Ints, b: Ints, bits: int = 32) -> Ints:
    """Returns the high half of 2ab, rounded half up, saturated to `bits`."""
    product = a * b
    half = 1 << (bits - 2)
    nudged = np.abs(product) + np.where(product >= 0, half, half - 1)
    high = np.sign(product) * (nudged >> (bits - 1))
    return np.asarray(np.minimum(high, (1 << (bits - 1)) - 1), np.int64)


def divide_by_power(x: Ints, exponent: Ints | int) -> Ints:
    """Returns x / 2**exponent, rounded half away from zero."""
    mask = (np.asarray(1, np.int64) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + ((x & mask) > threshold)


def divide_half_away(x: Ints, divisor: Ints | int) -> Ints:
    """Returns x / divisor, rounded half away from zero; the divisor is positive."""
    return np.asarray(np.sign(x) * ((np.abs(x) + np.asarray(divisor) // 2) // divisor), np.int64)


def round_half_away(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns real values rounded to integers, halves away from zero (C's `round`)."""
    whole = np.trunc(x)
    return np.asarray(whole + np.copysign(np.abs(x - whole) >= 0.5, x), x.dtype)
