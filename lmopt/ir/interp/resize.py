"""Maps at another size, in both arithmetics.

Source: LiteRT, tflite/kernels/internal/reference/resize_bilinear.h and
resize_nearest_neighbor.h: factors and positions in single precision, in this order.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.interp.call import Array, Call
from lmopt.ir.interp.fixedpoint import divide_half_away
from lmopt.ir.ops import ResizeBilinear, ResizeNearest
from lmopt.ir.types import DType

UNIT_BITS = 10
"""Integer positions count in 2**-10 pixels."""


def nearest(call: Call) -> Array:
    """Returns the operand's nearest pixels, whatever their element type."""
    op = cast(ResizeNearest, call.node.op)
    rows, columns = (
        _nearest_positions(size, out, op)
        for size, out in zip(call.x.shape[1:3], op.size, strict=True)
    )
    return np.asarray(call.x[:, rows][:, :, columns])


def bilinear(call: Call) -> Array:
    """Returns the operand interpolated in single precision."""
    op = cast(ResizeBilinear, call.node.op)
    (top, bottom, down), (left, right, across) = (
        positions(size, out, op) for size, out in zip(call.x.shape[1:3], op.size, strict=True)
    )
    down, across = down[:, None, None], across[:, None]
    x, one = call.x.astype(np.float32), np.float32(1)
    upper, lower = x[:, top], x[:, bottom]
    # The runtime's order of products and sums: u8 sees their last bit.
    parts = (
        upper[:, :, left] * (one - down) * (one - across),
        lower[:, :, left] * down * (one - across),
        upper[:, :, right] * (one - down) * across,
        lower[:, :, right] * down * across,
    )
    return np.asarray(((parts[0] + parts[1]) + parts[2]) + parts[3])


def bilinear_integer(call: Call) -> Array:
    """Returns stored integers interpolated.

    i8, i16: positions in 2**-10 pixels, the weighted sum rounded half away from zero. u8: in single
    precision, rounded half up.
    """
    if call.result.dtype is DType.U8:
        return np.asarray(bilinear(call) + np.float32(0.5)).astype(np.uint8)
    op = cast(ResizeBilinear, call.node.op)
    (top, bottom, down), (left, right, across) = (
        integer_positions(size, out, op)
        for size, out in zip(call.x.shape[1:3], op.size, strict=True)
    )
    down, across = down[:, None, None], across[:, None]
    x: NDArray[np.int64] = call.x.astype(np.int64)
    one = 1 << UNIT_BITS
    rows = x[:, top] * (one - down) + x[:, bottom] * down
    total = rows[:, :, left] * (one - across) + rows[:, :, right] * across
    return divide_half_away(np.asarray(total, np.int64), one * one).astype(call.x.dtype)


def bilinear_by_default(call: Call) -> Array:
    """Returns stored integers as the default kernels interpolate them, but for the last step.

    The reference kernel's places for i8 drift by up to 2**-11 pixels per pixel of the result, the
    default kernels' do not.
    """
    if call.result.dtype is not DType.I8:
        return bilinear_integer(call)
    return np.floor(bilinear(call) + np.float32(0.5)).astype(np.int8)


def _factor(size: int, out: int, op: ResizeBilinear | ResizeNearest) -> np.float32:
    if op.align_corners and out > 1:
        return np.float32(size - 1) / np.float32(out - 1)
    return np.float32(size) / np.float32(out)


def _nearest_positions(size: int, out: int, op: ResizeNearest) -> NDArray[np.int64]:
    offset = np.float32(0.5 if op.half_pixel_centers else 0.0)
    places = (np.arange(out, dtype=np.float32) + offset) * _factor(size, out, op)
    steps = np.floor(places + np.float32(0.5)) if op.align_corners else np.floor(places)
    return np.asarray(np.clip(steps.astype(np.int64), 0, size - 1))


def positions(
    size: int, out: int, op: ResizeBilinear
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Returns the pixels before and after each place, and how far it lies from the one before."""
    factor, half = _factor(size, out, op), np.float32(0.5)
    places = np.arange(out, dtype=np.float32)
    places = (places + half) * factor - half if op.half_pixel_centers else places * factor
    before = np.maximum(np.floor(places).astype(np.int64), 0)
    after = np.minimum(np.ceil(places).astype(np.int64), size - 1)
    return before, after, places - before.astype(np.float32)


def integer_positions(
    size: int, out: int, op: ResizeBilinear
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the same as `positions` for i8 and i16, distances in 2**-UNIT_BITS pixels."""
    one = 1 << UNIT_BITS
    factor = (one * size + out // 2) // out
    if op.align_corners and out > 1:
        factor = (one * (size - 1) + (out - 1) // 2) // (out - 1)
    places = np.arange(out, dtype=np.int64) * factor
    if op.half_pixel_centers:
        places += factor // 2 - one // 2
    before = np.maximum(places // one, 0)
    after = np.clip((places + one - 1) // one, 0, size - 1)
    return before, after, places - one * before
