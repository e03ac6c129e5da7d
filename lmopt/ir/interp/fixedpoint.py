"""Fixed-point arithmetic as LiteRT's kernels do it: real factors as 31-bit mantissa and shift.

Everything runs on int64 arrays that hold int32 values, and wraps where C++ would.

Source: LiteRT, tflite/kernels/internal/quantization_util.cc and common.cc (the build without
TFLITE_SINGLE_ROUNDING); gemmlowp, fixedpoint/fixedpoint.h.
"""

from __future__ import annotations

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
        fraction, exponent = np.frexp(np.asarray(real, np.float64))
        mantissa = np.asarray(np.floor(fraction * 2.0**31 + 0.5), np.int64)
        shift = np.asarray(exponent, np.int64) + (mantissa >> 31)
        mantissa >>= mantissa >> 31  # what was rounded up to 2**31
        kept = (mantissa > 0) & (shift >= -31)
        return cls(np.where(kept, mantissa, 0), np.where(kept, shift, 0))

    def apply(self, x: Ints) -> Ints:
        """Returns `x` times the factor, rounded twice.

        First the high half of the doubled product, halves up (after a left shift), then the right
        shift, halves away from zero.
        """
        left = np.maximum(self.shift, 0)
        high = doubling_high_product(_wrap(x << left), self.mantissa)
        return divide_by_power(high, np.maximum(-self.shift, 0))

    def apply_wide(self, x: Ints) -> Ints:
        """Returns `x`, which may have 48 bits, times the mantissa's upper 15 bits, halves up."""
        short = np.minimum((self.mantissa + (1 << 15)) >> 16, (1 << 15) - 1)
        right = 15 - self.shift
        return _wrap((x * short + (np.asarray(1, np.int64) << (right - 1))) >> right)


def _wrap(x: Ints) -> Ints:
    return x.astype(np.int32).astype(np.int64)


def doubling_high_product(a: Ints, b: Ints, bits: int = 32) -> Ints:
    """Returns the high half of 2ab, rounded half up, saturated to `bits`."""
    high = (a * b + (1 << (bits - 2))) >> (bits - 1)
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
