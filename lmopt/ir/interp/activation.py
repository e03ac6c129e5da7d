"""Integer arithmetic of activations, bit-exact to LiteRT's reference kernels.

Source: LiteRT, tflite/kernels/activations.cc and the files named per function.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.interp.call import Array, Call, require_grid
from lmopt.ir.interp.fixedpoint import (
    Ints,
    Multiplier,
    divide_by_power,
    doubling_high_product,
    round_half_away,
)
from lmopt.ir.interp.store import centered, clamp, store, zero_point
from lmopt.ir.ops import LeakyRelu
from lmopt.ir.types import DType

# the output scales that LiteRT demands of a quantized LOGISTIC, and of a TANH in 16 bits
SIGMOID_SCALE = 1 / 256
FRACTION = 1 / 32768

_PER_UNIT = 3 * 4096
"""Places of the 16-bit sigmoid and tanh for each 1.0 of their operand."""
POWERS: Mapping[str, tuple[int, ...]] = {"sigmoid": (-12,), "tanh": (-12, -11)}
"""Powers of two among operand scales for which 16-bit functions have a way of their own."""


def _scale_ratio(call: Call, *factors: float) -> float:
    """Returns operand scale * factors / result scale, in single precision step by step."""
    ratio = np.float32(call.grid(0).scale[0])
    for factor in factors:
        ratio = ratio * np.float32(factor)
    return float(ratio / np.float32(call.result_grid.scale[0]))


def _steps(call: Call) -> Ints:
    return centered(call, 0).astype(np.int64)


def relu(call: Call) -> Array:
    """Requantized (factor in single precision), then at least the zero point.

    Source: activations.cc (QuantizedReluX), internal/optimized/optimized_ops.h (ReluX).
    """
    return clamp(call, Multiplier.of(_scale_ratio(call)).apply(_steps(call)), "relu")


def relu6(call: Call) -> Array:
    """As `relu`, and at most 6."""
    return clamp(call, Multiplier.of(_scale_ratio(call)).apply(_steps(call)), "relu6")


def leaky_relu(call: Call) -> Array:
    """Requantized by one factor where not negative, by another (with alpha) elsewhere.

    Source: internal/reference/leaky_relu.h (QuantizeLeakyRelu).
    """
    x, alpha = _steps(call), cast(LeakyRelu, call.node.op).alpha
    if alpha < 0:
        raise GraphError(f"leaky_relu on integers wants alpha of at least 0, got {alpha}")
    positive = Multiplier.of(_scale_ratio(call)).apply(x)
    negative = Multiplier.of(_scale_ratio(call, alpha)).apply(x)
    return store(call, np.where(x >= 0, positive, negative) + zero_point(call))


def prelu(call: Call) -> Array:
    """Requantized where not negative, else the product with the centred alpha requantized.

    Source: internal/reference/prelu.h (BroadcastPrelu4DSlow).
    """
    weight = call.node.weight("alpha")
    grid = require_grid(weight.type, "alpha")
    if weight.array is None:
        raise GraphError("alpha has no values yet")
    x, alpha = _steps(call), weight.array.astype(np.int64) - grid.zero_point[0]
    positive = Multiplier.of(_scale_ratio(call)).apply(x)
    negative = Multiplier.of(_scale_ratio(call, grid.scale[0])).apply(x * alpha)
    return store(call, np.where(x >= 0, positive, negative) + zero_point(call))


def sigmoid(call: Call) -> Array:
    """A table over the stored values, see `_table`; the result's scale must be 1/256.

    In 16 bits, whose results have scale 1/32768, it is read between every 24th, linearly.

    Source: activations.cc (SigmoidPrepare), internal/reference/integer_ops/logistic.h.
    """
    if call.result.dtype is DType.I16:
        place = _place(call)
        share = _between(place, bits=9, most=0x7FFF << 10)
        share = np.where(place >= 0, share + (1 << 9), (1 << 25) - share + (1 << 9) - 1)
        return store(call, share >> 10)
    if call.result_grid.scale[0] != SIGMOID_SCALE:
        raise GraphError(
            f"sigmoid on integers wants a result scale of 1/256, got {call.result_grid.scale[0]}",
            hint="the runtime accepts no other",
        )
    one = np.float32(1)
    return _table(call, lambda x: one / (one + _c_library("expf", -x)))


def tanh(call: Call) -> Array:
    """A table over the stored values, see `_table`.

    In 16 bits it is 2 * sigmoid(2 * x) - 1, from the table of `sigmoid`.

    Source: activations.cc (TanhPrepare), internal/reference/integer_ops/tanh.h.
    """
    if call.result.dtype is DType.I16:
        place = _place(call)
        share = _between(place, bits=8, most=0xFFFF << 8) - (1 << 23)
        return store(call, (np.where(place >= 0, share, -share - 1) + (1 << 7)) >> 8)
    return _table(call, lambda x: _c_library("tanhf", x))


def power_of_scale(kind: str, scale: float) -> int | None:
    """Returns the power of two that a 16-bit sigmoid or tanh takes its operand's scale for.

    None is every other scale. What counts as such a power comes within 0.07 % of it; the runtime's
    default kernels are coarser then (see ROUNDING.md).

    Source: activations.cc (SigmoidPrepare, TanhPrepare), kernel_util.cc (CheckedLog2).
    """
    exponent = math.log2(scale)
    nearest = math.floor(exponent + 0.5)
    return nearest if nearest in POWERS[kind] and abs(exponent - nearest) < 1e-3 else None


def _place(call: Call) -> Ints:
    """Returns 16-bit operands in units of 1 / `_PER_UNIT`, times a factor of 15 bits, cut off."""
    scale = call.grid(0).scale[0]
    if call.result_grid.scale[0] != FRACTION:
        raise GraphError(
            f"{call.node.op.kind} on 16 bits wants a result scale of 1/32768, got "
            f"{call.result_grid.scale[0]}",
            hint="the runtime accepts no other",
        )
    power = power_of_scale(call.node.op.kind, scale)
    if power is not None:
        return _steps(call) * (3 << (power + 12))
    factor, shift = scale * _PER_UNIT, 0
    while factor <= 32767 / 2 and shift <= 30:
        factor, shift = factor * 2, shift + 1
    if factor >= 1 << 16:
        raise GraphError(
            f"{call.node.op.kind} on 16 bits cannot take an operand of scale {scale}",
            hint="the runtime's product overflows from 5.33 on",
        )
    return np.asarray((_steps(call) * int(factor) + (1 << shift >> 1)) >> shift, np.int64)


def _between(place: Ints, bits: int, most: int) -> Ints:
    """Returns the sigmoid of a size, with `bits` more than the table's 16; `most` beyond its end.

    Args:
        place: In steps of 2**-bits of the table's.
        bits: Of the share between two entries.
        most: What stands for everything beyond.
    """
    size, table = np.abs(place), _sigmoid_table()
    entry = size >> bits
    low = np.minimum(entry, len(table) - 2)
    read = (table[low] << bits) + (size & ((1 << bits) - 1)) * (table[low + 1] - table[low])
    return np.where(entry > low, most, read)


@cache
def _sigmoid_table() -> Ints:
    """Returns the runtime's sigmoid at every 24th, in 16 bits.

    An entry is raised by half of what a straight line to the next one falls short of the function,
    which errs by as much above as below; the last entry is the end of the type. Written as that
    rule, it equals the runtime's table to the last bit.

    Source: internal/common.h (sigmoid_table_uint16).
    """
    share = 1 / (1 + np.exp(-np.arange(256) / 24))
    bend = share * (1 - share) * (1 - 2 * share) / 24**2
    table = np.floor(65536 * (share - bend / 16) + 0.5).astype(np.int64)
    table[-1] = 0xFFFF
    return table


def _table(call: Call, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Array:
    """Returns the function of every stored value in single precision, rounded half away from zero.

    Source: internal/common.h (LUTPopulate).
    """
    low, high = call.types[0].dtype.bounds
    grid, result = call.grid(0), call.result_grid
    steps = np.arange(low, high + 1, dtype=np.int64) - grid.zero_point[0]
    real = np.float32(grid.scale[0]) * steps.astype(np.float32)
    inverse = np.float32(1) / np.float32(result.scale[0])
    table = store(
        call, round_half_away(function(real) * inverse).astype(np.int64) + result.zero_point[0]
    )
    return np.asarray(table[call.x.astype(np.int64) - low])


def _c_library(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a single-precision function of the C library, which is what the runtime calls.

    Its last bit decides near ties; NumPy's own functions, or double precision rounded once, differ
    in some of them.
    """
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return np.array([function(value) for value in x.tolist()], np.float32)


def hard_swish(call: Call) -> Array:
    """16-bit fixed point: x on the result's scale times (x + 3) / 6 held within [0, 1].

    Products of 16-bit numbers are rounded half up, the last of them is cut off
    towards zero, the final shift rounds half away from zero.

    Source: internal/reference/hard_swish.h, activations.cc (HardSwishPrepare).
    """
    fine = np.float32(1 / 128) * np.float32(call.grid(0).scale[0])
    out = Multiplier.of(float(fine / np.float32(call.result_grid.scale[0])))
    gate = Multiplier.of(float(fine / np.float32(3 / 32768)))
    if out.shift > 0:
        raise GraphError(
            f"hard_swish on integers cannot go from scale {call.grid(0).scale[0]} to "
            f"{call.result_grid.scale[0]}: the ratio must stay below 128"
        )
    x = _steps(call) << 7
    scaled = doubling_high_product(x, _halved(out.mantissa), bits=16)
    shift = int(gate.shift)
    share = _saturate(x << max(shift - 1, 0))
    share = doubling_high_product(share, _halved(gate.mantissa), bits=16)
    share = _saturate(share << 1) if shift > 0 else divide_by_power(share, max(-shift, 0))
    product = ((share + (1 << 15)) >> 1) * scaled
    cut = np.sign(product) * (np.abs(product) >> 15)
    return store(call, divide_by_power(cut, -int(out.shift)) + zero_point(call))


def _halved(mantissa: Ints) -> Ints:
    """Returns a 31-bit mantissa rounded to 15 bits."""
    return np.asarray(np.minimum((mantissa + (1 << 15)) >> 16, (1 << 15) - 1), np.int64)


def _saturate(x: Ints) -> Ints:
    return np.asarray(np.clip(x, -(1 << 15), (1 << 15) - 1), np.int64)
