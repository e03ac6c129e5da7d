"""Integer arithmetic: one function per op kind, bit-exact to LiteRT's reference kernels.

Operands and results are stored integers; grids come from the types. Every docstring states the
rounding rule and the file of LiteRT (below tflite/kernels/) it was read from. `requantize` means
multiplying by a factor as in `fixedpoint.Multiplier.apply`, adding the result's zero point and
clamping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from lmopt.errors import GraphError
from lmopt.ir.graph import Node
from lmopt.ir.interp import resize
from lmopt.ir.interp.activation import (
    hard_swish,
    leaky_relu,
    prelu,
    relu,
    relu6,
    sigmoid,
    tanh,
)
from lmopt.ir.interp.arrange import ARRANGE
from lmopt.ir.interp.call import Array, Call, Kernel, require_grid
from lmopt.ir.interp.fixedpoint import (
    Ints,
    Multiplier,
    divide_half_away,
    round_half_away,
)
from lmopt.ir.interp.floating import concat, max_pool, pad, reshape
from lmopt.ir.interp.store import centered, clamp, store, zero_point
from lmopt.ir.interp.window import (
    convolve,
    convolve_depthwise,
    convolve_transposed,
    taps,
    window_counts,
)
from lmopt.ir.ops import (
    Add,
    AvgPool2D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    MaxPool2D,
    Mean,
    Mul,
    Sub,
)
from lmopt.ir.types import DType, Quant

HEADROOM_BITS: Mapping[DType, int] = {DType.I8: 20, DType.U8: 20, DType.I16: 15}
"""Add and sub compute at 2**-bits of twice the larger operand scale."""


def _conv2d(call: Call) -> Array:
    """Sums in int32 or int64 (see `has_wide_sums`), requantized per filter.

    Source: conv.cc, internal/reference/integer_ops/conv.h, internal/reference/conv.h.
    """
    op = cast(Conv2D, call.node.op)
    kernel = _centered_kernel(call)
    sums = convolve(centered(call, 0), kernel, op.stride, op.dilation, op.padding, op.groups)
    return clamp(call, _requantized_sums(call, sums), op.activation)


def _depthwise_conv2d(call: Call) -> Array:
    """Sums as in `conv2d`, requantized per channel.

    Source: depthwise_conv.cc, internal/reference/integer_ops/depthwise_conv.h,
    internal/reference/depthwiseconv_uint8.h.
    """
    op = cast(DepthwiseConv2D, call.node.op)
    kernel = _centered_kernel(call)
    sums = convolve_depthwise(centered(call, 0), kernel, op.stride, op.dilation, op.padding)
    return clamp(call, _requantized_sums(call, sums), op.activation)


def _conv2d_transpose(call: Call) -> Array:
    """As `conv2d`, the sums gathered per result pixel.

    Source: transpose_conv.cc, internal/reference/integer_ops/transpose_conv.h,
    internal/reference/transpose_conv.h.
    """
    op = cast(Conv2DTranspose, call.node.op)
    sums = convolve_transposed(centered(call, 0), _centered_kernel(call), op.stride, op.padding)
    return clamp(call, _requantized_sums(call, sums), op.activation)


def _dense(call: Call) -> Array:
    """Sums in int32, times the real factor in double precision, rounded half away from zero.

    Source: fully_connected.cc, internal/reference/fully_connected.h,
    internal/reference/integer_ops/fully_connected.h (the overloads that take scales).
    """
    op = cast(Dense, call.node.op)
    sums = centered(call, 0) @ _centered_kernel(call)
    steps = round_half_away(_sums(call, sums) * np.array(_sum_factors(call)))
    return clamp(call, steps.astype(np.int64), op.activation)


def _centered_kernel(call: Call) -> Array:
    """Returns the stored kernel minus its zero point, in float64, where sums are exact."""
    weight = call.node.weight("kernel")
    quant = require_grid(weight.type, "the kernel")
    if weight.array is None:
        raise GraphError("the kernel has no values yet")
    if weight.type.dtype is not call.types[0].dtype.kernel:
        raise GraphError(f"the kernel is {weight.type.dtype}, the operand {call.types[0].dtype}")
    if weight.type.dtype is DType.I8 and any(quant.zero_point):
        raise GraphError("an i8 kernel must have zero point 0: the runtime ignores others")
    if len(quant.scale) > 1 and weight.type.dtype is DType.U8:
        raise GraphError("a u8 kernel has one scale: the runtime has no per-channel u8 kernels")
    if len(quant.scale) not in (1, call.result.shape[-1]):
        raise GraphError(
            f"the kernel has {len(quant.scale)} scales, wanted 1 or one for each of the "
            f"{call.result.shape[-1]} output channels"
        )
    return weight.array.astype(np.float64) - quant.zero_point[0]


def _requantized_sums(call: Call, sums: Array) -> Ints:
    factors, total = _sum_factors(call), _sums(call, sums)
    factor = Multiplier.of(factors if len(factors) > 1 else factors[0])
    return factor.apply_wide(total) if has_wide_sums(call.node) else factor.apply(total)


def has_wide_sums(node: Node) -> bool:
    """Returns whether a kernel's sums have 48 bits and their factor 15, in place of 32 and 31.

    So it is on i16, unless an i32 bias says otherwise.

    Source: conv.cc, internal/common.cc (both overloads of MultiplyByQuantizedMultiplier).
    """
    bias = node.weights.get("bias")
    narrow = bias is not None and bias.type.dtype is DType.I32
    return node.results[0].dtype is DType.I16 and not narrow


def _sums(call: Call, sums: Array) -> Ints:
    """Returns exact sums plus the bias."""
    bias = call.node.weights.get("bias")
    if bias is None:
        return sums.astype(np.int64)
    if bias.array is None:
        raise GraphError("the bias has no values yet")
    return sums.astype(np.int64) + bias.array.astype(np.int64)


def _sum_factors(call: Call) -> list[float]:
    """Returns operand scale * kernel scale / result scale, one for each kernel scale.

    The product of the first two is taken in single precision by convolutions on u8, in double
    precision elsewhere.

    Source: kernel_util.cc (PopulateConvolutionQuantizationParams and
    GetQuantizedConvolutionMultipler).
    """
    kernel = require_grid(call.node.weight("kernel").type, "the kernel")
    scale, result = call.grid(0).scale[0], call.result_grid.scale[0]
    if call.result.dtype is DType.U8 and not isinstance(call.node.op, Dense):
        return [float(np.float32(scale) * np.float32(kernel.scale[0])) / result]
    return [scale * each / result for each in kernel.scale]


def _add(call: Call) -> Array:
    """Operands shifted left and requantized to twice the larger scale, then the sum.

    Source: add.cc, internal/reference/add.h, internal/reference/integer_ops/add.h.
    """
    left, right, out = _addends(call)
    return clamp(call, out.apply(left + right), cast(Add, call.node.op).activation)


def _sub(call: Call) -> Array:
    """As `add`, with the difference.

    Source: sub.cc, internal/reference/sub.h.
    """
    left, right, out = _addends(call)
    return clamp(call, out.apply(left - right), cast(Sub, call.node.op).activation)


def _addends(call: Call) -> tuple[Ints, Ints, Multiplier]:
    scales = [call.grid(k).scale[0] for k in (0, 1)]
    unit, bits = 2 * max(scales), HEADROOM_BITS[call.result.dtype]
    out = unit / (2**bits * call.result_grid.scale[0])
    if out >= 1:
        raise GraphError(
            f"{call.node.op.kind} cannot go from scale {max(scales)} to "
            f"{call.result_grid.scale[0]}: the ratio must stay below {2 ** (bits - 1)}"
        )
    left, right = (
        Multiplier.of(scales[k] / unit).apply(centered(call, k).astype(np.int64) << bits)
        for k in (0, 1)
    )
    return left, right, Multiplier.of(out)


def _mul(call: Call) -> Array:
    """The product of the centred operands, requantized; the factor in single precision.

    Source: mul.cc, internal/reference/mul.h, internal/reference/integer_ops/mul.h.
    """
    left, right = (np.float32(call.grid(k).scale[0]) for k in (0, 1))
    factor = Multiplier.of(float(left * right / np.float32(call.result_grid.scale[0])))
    product = (centered(call, 0) * centered(call, 1)).astype(np.int64)
    return clamp(call, factor.apply(product), cast(Mul, call.node.op).activation)


def _max_pool2d(call: Call) -> Array:
    """The largest stored value, exact.

    Source: internal/reference/pooling.h, internal/reference/integer_ops/pooling.h.
    """
    op = cast(MaxPool2D, call.node.op)
    return max_pool(call.x, op, call.result.dtype.bounds[0])


def _avg_pool2d(call: Call) -> Array:
    """The mean of the stored values (zero point included), rounded half away from zero.

    Source: internal/reference/pooling.h, internal/reference/integer_ops/pooling.h.
    """
    op = cast(AvgPool2D, call.node.op)
    x = call.x.astype(np.int64)
    total = np.asarray(sum(taps(x, op.size, op.stride, (1, 1), op.padding, 0)))
    counts = window_counts(x.shape, op.size, op.stride, op.padding)
    return store(call, divide_half_away(total, counts.astype(np.int64)))


def _mean(call: Call) -> Array:
    """The centred sum, requantized by a factor that holds 1 / elements.

    The mantissa of operand scale / result scale is shifted left by floor(log2(elements)) and
    divided by elements, cut off.

    Source: reduce.cc, internal/reference/reduce.h (QuantizedMeanOrSum).
    """
    ratio = Multiplier.of(call.grid(0).scale[0] / call.result_grid.scale[0])
    count = call.x.shape[1] * call.x.shape[2]
    shift = min(count.bit_length() - 1, 32, 31 + int(ratio.shift))
    factor = Multiplier((ratio.mantissa << shift) // count, ratio.shift - shift)
    keepdims = cast(Mean, call.node.op).keepdims
    total = centered(call, 0).sum(axis=(1, 2), keepdims=keepdims).astype(np.int64)
    return store(call, factor.apply(total) + zero_point(call))


def _pad(call: Call) -> Array:
    """The stored values with the zero point around them, exact.

    Source: pad.cc (the padding value of quantized PAD is the result's zero point).
    """
    return pad(call, zero_point(call))


def _constant(call: Call) -> Array:
    """The stored values as they are."""
    weight = call.node.weight("value")
    if weight.array is None:
        raise GraphError("the constant has no values yet")
    if weight.type.quant != call.result.quant:
        raise GraphError(f"the value is {weight.type}, the result {call.result}")
    return weight.array


def _quantize(call: Call) -> Array:
    """Real: divided by the scale in single precision, rounded half away from zero.

    Integer: centred and requantized, the factor in double precision.

    Source: quantize.cc, internal/reference/quantize.h, internal/reference/requantize.h.
    """
    if call.types[0].quant is None:
        return quantize_real(call.x, call.result_grid, call.result.dtype)
    factor = Multiplier.of(call.grid(0).scale[0] / call.result_grid.scale[0])
    return store(call, factor.apply(centered(call, 0).astype(np.int64)) + zero_point(call))


def quantize_real(x: Array, grid: Quant, dtype: DType) -> Array:
    """Returns real values on a grid as the runtime's QUANTIZE puts them there."""
    low, high = dtype.bounds
    steps = round_half_away(x.astype(np.float32) / np.float32(grid.scale[0]))
    return np.clip(steps.astype(np.float64) + grid.zero_point[0], low, high).astype(dtype.numpy)


EIGHT_BITS_ONLY = frozenset({"hard_swish", "space_to_depth", "depth_to_space"})
"""Ops without a form on i16: the runtime has none."""
INTEGER: Mapping[str, Kernel] = {
    "constant": _constant,
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "dense": _dense,
    "relu": relu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "hard_swish": hard_swish,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "mean": _mean,
    "concat": concat,
    "reshape": reshape,
    "pad": _pad,
    "resize_bilinear": resize.bilinear_integer,
    "resize_nearest": resize.nearest,
    "quantize": _quantize,
    "conv2d_transpose": _conv2d_transpose,
    **ARRANGE,
}
