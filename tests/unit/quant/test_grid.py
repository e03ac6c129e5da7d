"""Scales and zero points."""

import numpy as np
import pytest

from lmopt.ir.types import DType, Quant, ValueRange
from lmopt.quant.grid import (
    activation_grid,
    asymmetric_kernel,
    at_least,
    integer_bias,
    range_of,
    symmetric_kernel,
)


def test_bytes_of_a_picture_fall_exactly_on_the_uint8_grid():
    grid = activation_grid(ValueRange(0.0, 1.0), DType.U8)
    assert grid == Quant.per_tensor(1 / 255, 0)
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(grid.quantize(pixels.astype(np.float32) / 255, DType.U8), pixels)


def test_int8_and_uint8_grids_of_one_range_differ_by_128():
    for low, high in ((-1.0, 3.0), (0.0, 6.0), (-0.2, 0.1)):
        unsigned = activation_grid(ValueRange(low, high), DType.U8)
        signed = activation_grid(ValueRange(low, high), DType.I8)
        assert signed.scale == unsigned.scale
        assert signed.zero_point[0] == unsigned.zero_point[0] - 128


def test_sixteen_bits_are_symmetric_and_end_at_the_further_extreme():
    grid = activation_grid(ValueRange(-1.0, 3.0), DType.I16)
    assert grid == Quant.per_tensor(3 / 32767, 0)
    ends = np.array([-3.0, 0.0, 3.0, 9.0], np.float32)
    assert grid.quantize(ends, DType.I16).tolist() == [-32767, 0, 32767, 32767]
    assert activation_grid(ValueRange(0.0, 0.0), DType.I16).zero_point == (0,)


@pytest.mark.parametrize("storage", [DType.I8, DType.U8, DType.I16])
@pytest.mark.parametrize("low", [-3.0, 0.0])
def test_a_range_is_widened_to_just_the_scale_wanted(storage: DType, low: float):
    narrow = ValueRange(low, 1.0 if low else 0.0)
    assert activation_grid(at_least(narrow, 0.5, storage), storage).scale[0] == pytest.approx(0.5)
    wide = ValueRange(-1e5, 1e5)
    assert at_least(wide, 0.5, storage) == wide


def test_zero_is_always_on_the_grid_and_inside_the_range():
    grid = activation_grid(ValueRange(2.0, 5.0), DType.U8)
    assert grid.zero_point == (0,)
    assert range_of(grid, DType.U8).high == pytest.approx(5.0, rel=1e-6)


def test_an_all_zero_range_still_has_a_usable_scale():
    assert activation_grid(ValueRange(0.0, 0.0), DType.I8).scale[0] > 0


def test_symmetric_kernel_uses_127_per_channel_and_never_minus_128():
    kernel = np.array([[1.0, -4.0], [-2.0, 3.0]], np.float32)
    weight = symmetric_kernel(kernel, 1)
    assert weight.type.quant == Quant((2 / 127, 4 / 127), (0, 0), 1)
    assert weight.array is not None
    assert weight.array.tolist() == [[64, -127], [-127, 95]]


def test_asymmetric_kernel_leaves_the_stored_zero_unused():
    weight = asymmetric_kernel(np.array([-1.0, 0.0, 2.0], np.float32))
    assert weight.array is not None and weight.type.quant is not None
    assert weight.array.min() >= 1
    assert weight.real()[1] == 0.0
    assert np.abs(weight.real() - [-1.0, 0.0, 2.0]).max() <= weight.type.quant.scale[0]


def test_bias_lies_on_operand_scale_times_kernel_scale():
    operand = Quant.per_tensor(0.5, 3)
    bias = integer_bias(np.array([1.0, -2.0], np.float32), operand, Quant((0.1, 0.25), (0, 0), 3))
    assert bias.array is not None and bias.type.quant is not None
    assert bias.array.tolist() == [20, -16]
    assert bias.type.quant.scale == pytest.approx((0.05, 0.125), rel=1e-6)
