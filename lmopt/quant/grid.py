"""From ranges and kernels to scales and zero points: the one grid of calibration, QAT and files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.types import DType, Quant, ValueRange, Weight

STEPS = 255
"""Steps between the least and the greatest of 256 stored values."""
_TINY = float(np.finfo(np.float32).tiny)


def activation_grid(value_range: ValueRange, storage: DType) -> Quant:
    """Returns the grid of a range, 0 exactly on it: asymmetric in 8 bits, symmetric in 16.

    Source: TensorFlow Lite 8-bit quantization specification (zero must be representable); its
    16x8 mode, whose zero points are 0.
    """
    low, high = min(value_range.low, 0.0), max(value_range.high, 0.0)
    least, greatest = storage.bounds
    scale = float(np.float32(_step(low, high, storage)))
    if storage is DType.I16:
        return Quant.per_tensor(scale if scale >= _TINY else 1.0 / greatest, 0)
    if scale < _TINY:
        return Quant.per_tensor(1.0 / STEPS, least if high >= -low else greatest)
    zero_point = int(np.clip(round(least - low / scale), least, greatest))
    return Quant.per_tensor(scale, zero_point)


def _step(low: float, high: float, storage: DType) -> float:
    least, greatest = storage.bounds
    if storage is DType.I16:
        return max(high, -low) / greatest
    return (high - low) / (greatest - least)


def at_least(value_range: ValueRange, scale: float, storage: DType) -> ValueRange:
    """Returns a range widened around 0 so that its activation grid has at least a scale."""
    low, high = min(value_range.low, 0.0), max(value_range.high, 0.0)
    now = _step(low, high, storage)
    if now < _TINY:
        return ValueRange(0.0, scale / _step(0.0, 1.0, storage))
    factor = max(1.0, scale / now)
    return ValueRange(low * factor, high * factor)


def range_of(grid: Quant, storage: DType) -> ValueRange:
    """Returns the real values that the least and greatest stored values of a grid mean."""
    least, greatest = storage.bounds
    scale, zero = grid.scale[0], grid.zero_point[0]
    return ValueRange(scale * (least - zero), scale * (greatest - zero))


def symmetric_kernel(
    kernel: NDArray[np.float32], axis: int | None, *, floor: NDArray[np.float64] | float = 0.0
) -> Weight:
    """Returns an int8 kernel in [-127, 127] with zero points 0, one scale per slice of `axis`.

    Args:
        kernel: Real values.
        axis: The output-channel dimension, or None for one scale.
        floor: Least scale per slice, so that a bias in int32 still fits.
    """
    grid = symmetric_grid(kernel, axis, floor=floor)
    stored = np.maximum(grid.quantize(kernel, DType.I8), -127).astype(np.int8)
    return Weight.of(stored, grid)


def symmetric_grid(
    kernel: NDArray[np.float32], axis: int | None, *, floor: NDArray[np.float64] | float = 0.0
) -> Quant:
    """Returns the grid of `symmetric_kernel`."""
    others = tuple(k for k in range(kernel.ndim) if axis is None or k != axis)
    peak = np.abs(kernel.astype(np.float64)).max(axis=others)
    scale = np.maximum(np.atleast_1d(peak) / 127.0, floor)
    scale = np.where(scale < _TINY, 1.0 / 127.0, scale)
    return Quant(tuple(scale.tolist()), (0,) * scale.size, axis)


def asymmetric_kernel(kernel: NDArray[np.float32], *, floor: float = 0.0) -> Weight:
    """Returns a uint8 kernel in [1, 255] with one scale and zero point.

    The stored value 0 stays unused, as in TFLite's own uint8 training: older Arm kernels rely on
    it. Source: `narrow_range` in Jacob et al., CVPR 2018, section 3.1.
    """
    grid = asymmetric_grid(kernel, floor=floor)
    return Weight.of(np.maximum(grid.quantize(kernel, DType.U8), 1).astype(np.uint8), grid)


def asymmetric_grid(kernel: NDArray[np.float32], *, floor: float = 0.0) -> Quant:
    """Returns the grid of `asymmetric_kernel`."""
    low, high = min(float(kernel.min()), 0.0), max(float(kernel.max()), 0.0)
    scale = float(np.float32(max((high - low) / (STEPS - 1), floor)))
    if scale < _TINY:
        scale = 1.0 / STEPS
    return Quant.per_tensor(scale, int(np.clip(round(1 - low / scale), 1, 255)))


def integer_bias(
    bias: NDArray[np.float32], operand: Quant, kernel: Quant, dtype: DType = DType.I32
) -> Weight:
    """Returns a bias on the grid operand scale times kernel scale."""
    scale = tuple(float(np.float32(operand.scale[0]) * np.float32(s)) for s in kernel.scale)
    grid = Quant(scale, (0,) * len(scale), None if kernel.axis is None else 0)
    return Weight.of(grid.quantize(bias, dtype), grid)
