"""Fixed-point arithmetic: against exact fractions, and at its edges."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmopt.ir.interp.fixedpoint import (
    Multiplier,
    divide_by_power,
    divide_half_away,
    doubling_high_product,
    round_half_away,
)

INT32 = st.integers(-(2**31), 2**31 - 1)


def half_away(value: Fraction) -> int:
    """Returns the nearest integer, halves away from zero."""
    nearest = floor(abs(value) + Fraction(1, 2))
    return nearest if value >= 0 else -nearest


def scalar(value: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([value], np.int64)


@given(INT32, st.integers(0, 31))
def test_divide_by_power_is_exact(value: int, exponent: int) -> None:
    assert divide_by_power(scalar(value), exponent)[0] == half_away(Fraction(value, 2**exponent))


@given(INT32, st.integers(1, 2**20))
def test_divide_half_away_is_exact(value: int, divisor: int) -> None:
    got = divide_half_away(scalar(value), divisor)[0]
    # an odd divisor has no halves, an even one rounds them away from zero
    assert got == half_away(Fraction(value, divisor))


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(2**30, 2**31 - 1))
def test_doubling_high_product_is_the_rounded_high_half(a: int, b: int) -> None:
    got = doubling_high_product(scalar(a), scalar(b))[0]
    exact = Fraction(a * b, 2**31)
    # gemmlowp's nudge is one short of a half below zero: exact negative halves go up
    tie_up = exact < 0 and exact - floor(exact) == Fraction(1, 2)
    assert got == (floor(exact) + 1 if tie_up else half_away(exact))


def test_the_least_int16_squared_saturates() -> None:
    assert doubling_high_product(scalar(-(2**15)), scalar(-(2**15)), bits=16)[0] == 2**15 - 1


@given(st.integers(-(2**23), 2**23), st.floats(1e-6, 3.9))
def test_multiplier_is_within_its_two_roundings(value: int, real: float) -> None:
    got = Multiplier.of(real).apply(scalar(value))[0]
    assert abs(Fraction(int(got)) - Fraction(real) * value) <= 1 + Fraction(abs(value), 2**28)


@given(st.integers(-(2**46), 2**46), st.floats(2.0**-31, 2.0**-17))
def test_a_wide_product_is_within_its_factor_of_15_bits(value: int, real: float) -> None:
    got = Multiplier.of(real).apply_wide(scalar(value))[0]
    exact = Fraction(real) * value
    assert abs(int(got) - exact) <= Fraction(1, 2) + abs(exact) / 2**15


def test_wide_products_by_hand() -> None:
    assert Multiplier.of(0.0).apply_wide(scalar(2**46))[0] == 0
    halves = np.array([3, -3, 5, -5], np.int64)
    assert Multiplier.of(0.5).apply_wide(halves).tolist() == [2, -1, 3, -2]  # halves up
    # 0.99999 has no 15 bits: the largest factor below 1 is 32767 / 32768
    assert Multiplier.of(0.99999).apply_wide(scalar(2**20))[0] == 2**20 - 32


def test_multiplier_edges() -> None:
    assert Multiplier.of(0.0).apply(scalar(1000))[0] == 0
    assert Multiplier.of(1.0).apply(scalar(-77))[0] == -77
    assert Multiplier.of(2.0**-40).apply(scalar(2**30))[0] == 0
    # a mantissa that rounds up to 2**31 becomes 2**30 with one more shift
    assert Multiplier.of(1 - 2.0**-40).mantissa == 2**30
    channels = Multiplier.of([0.5, 0.25]).apply(np.array([[8, 8], [-6, -6]], np.int64))
    assert channels.tolist() == [[4, 2], [-3, -2]]


def test_round_half_away_is_symmetric_and_exact_near_halves() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    values = np.array([0.5, -0.5, 1.5, -2.5, below, -below, 8388609.0], np.float32)
    assert round_half_away(values).tolist() == [1, -1, 2, -3, 0, 0, 8388609]
