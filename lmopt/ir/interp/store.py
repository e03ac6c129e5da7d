"""From stored integers to centred ones and back: the ends of every integer kernel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.interp.call import Array, Call
from lmopt.ir.interp.fixedpoint import Ints, round_half_away
from lmopt.ir.ops import Activation


def centered(call: Call, operand: int) -> NDArray[np.float64]:
    """Returns an operand minus its zero point, in float64, where sums of products are exact."""
    return call.operands[operand].astype(np.float64) - call.grid(operand).zero_point[0]


def zero_point(call: Call) -> int:
    """Returns the stored value that means 0 in the result."""
    return call.result_grid.zero_point[0]


def store(call: Call, values: Ints) -> Array:
    """Returns values saturated to the result's element type."""
    low, high = call.result.dtype.bounds
    return np.clip(values, low, high).astype(call.result.dtype.numpy)


def clamp(call: Call, steps: Ints, activation: Activation) -> Array:
    """Returns steps from 0 as stored values, saturated and held within a fused activation.

    The bounds 0 and 6 are divided by the scale in single precision, rounded half away from zero.

    Source: LiteRT, tflite/kernels/kernel_util.cc (CalculateActivationRangeQuantized).
    """
    zero = zero_point(call)
    low, high = call.result.dtype.bounds
    if activation != "none":
        low = max(low, zero)
    if activation == "relu6":
        six = round_half_away(np.float32(6) / np.asarray(call.result_grid.scale[0], np.float32))
        high = min(high, zero + int(six))
    return np.clip(steps + zero, low, high).astype(call.result.dtype.numpy)
