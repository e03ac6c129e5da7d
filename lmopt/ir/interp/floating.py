"""Float arithmetic: one function per op kind, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.interp import resize
from lmopt.ir.interp.arrange import ARRANGE
from lmopt.ir.interp.call import Array, Call, Kernel
from lmopt.ir.interp.landmark import LANDMARK
from lmopt.ir.interp.window import (
    convolve,
    convolve_depthwise,
    convolve_transposed,
    taps,
    window_counts,
)
from lmopt.ir.ops import (
    Activation,
    Add,
    AvgPool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Div,
    LeakyRelu,
    MaxPool2D,
    Mean,
    Mul,
    Pad,
    Sub,
    Sum,
)

Floats = NDArray[np.float32]


def activate(x: Floats, activation: Activation) -> Floats:
    """Returns `x` after a fused activation."""
    if activation == "none":
        return x
    return np.clip(x, 0, 6 if activation == "relu6" else None)


def _conv2d(call: Call) -> Array:
    op = cast(Conv2D, call.node.op)
    kernel = call.node.weight("kernel").real()
    y = convolve(call.x, kernel, op.stride, op.dilation, op.padding, op.groups)
    return activate(_biased(call.node, cast(Floats, y)), op.activation)


def _conv2d_transpose(call: Call) -> Array:
    op = cast(Conv2DTranspose, call.node.op)
    y = convolve_transposed(call.x, call.node.weight("kernel").real(), op.stride, op.padding)
    return activate(_biased(call.node, cast(Floats, y)), op.activation)


def _depthwise_conv2d(call: Call) -> Array:
    op = cast(DepthwiseConv2D, call.node.op)
    kernel = call.node.weight("kernel").real()
    y = convolve_depthwise(call.x, kernel, op.stride, op.dilation, op.padding)
    return activate(_biased(call.node, cast(Floats, y)), op.activation)


def _dense(call: Call) -> Array:
    op = cast(Dense, call.node.op)
    return activate(_biased(call.node, call.x @ call.node.weight("kernel").real()), op.activation)


def _biased(node: Node, y: Floats) -> Floats:
    return y + node.weight("bias").real() if "bias" in node.weights else y


def _batch_norm(call: Call) -> Array:
    op = cast(BatchNorm, call.node.op)
    gamma, beta, mean, variance = (
        call.node.weight(key).real() for key in ("gamma", "beta", "mean", "variance")
    )
    factor = gamma / np.sqrt(variance + np.float32(op.epsilon))
    return np.asarray((call.x - mean) * factor + beta)


def _leaky_relu(call: Call) -> Array:
    x = call.x
    return np.where(x > 0, x, x * np.float32(cast(LeakyRelu, call.node.op).alpha))


def _prelu(call: Call) -> Array:
    x = call.x
    return np.where(x > 0, x, x * call.node.weight("alpha").real())


def _sigmoid(call: Call) -> Array:
    # exp of a non-positive number cannot overflow
    small = np.exp(-np.abs(call.x))
    return np.asarray(np.where(call.x >= 0, 1, small) / (1 + small))


def _hard_swish(call: Call) -> Array:
    x = call.x
    return np.asarray(x * np.clip(x + 3, 0, 6) / np.float32(6))


def _add(call: Call) -> Array:
    return activate(call.x + call.operands[1], cast(Add, call.node.op).activation)


def _sub(call: Call) -> Array:
    return activate(call.x - call.operands[1], cast(Sub, call.node.op).activation)


def _mul(call: Call) -> Array:
    return activate(call.x * call.operands[1], cast(Mul, call.node.op).activation)


def _div(call: Call) -> Array:
    return activate(
        np.divide(call.x, call.operands[1], dtype=np.float32), cast(Div, call.node.op).activation
    )


def _softmax(call: Call) -> Array:
    grown = np.exp(call.x - call.x.max(axis=-1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=-1, keepdims=True))


def _sum(call: Call) -> Array:
    op = cast(Sum, call.node.op)
    return np.asarray(call.x.sum(axis=op.axes, dtype=np.float32, keepdims=op.keepdims))


def _max_pool2d(call: Call) -> Array:
    op = cast(MaxPool2D, call.node.op)
    return max_pool(call.x, op, float("-inf"))


def max_pool(x: Array, op: MaxPool2D, least: float) -> Array:
    """Returns the maximum over the windows of `op`; `least` stands in the padding."""
    views = taps(x, op.size, op.stride, (1, 1), op.padding, least)
    result = next(views).copy()
    for view in views:
        np.maximum(result, view, out=result)
    return result


def _avg_pool2d(call: Call) -> Array:
    op, x = cast(AvgPool2D, call.node.op), call.x
    total = np.asarray(sum(taps(x, op.size, op.stride, (1, 1), op.padding, 0)))
    return total / window_counts(x.shape, op.size, op.stride, op.padding).astype(np.float32)


def _mean(call: Call) -> Array:
    keepdims = cast(Mean, call.node.op).keepdims
    return np.asarray(call.x.mean(axis=(1, 2), dtype=np.float32, keepdims=keepdims))


def concat(call: Call) -> Array:
    """Returns the operands joined, whatever their element type."""
    return np.concatenate(call.operands, axis=cast(Concat, call.node.op).axis)


def reshape(call: Call) -> Array:
    """Returns the operand in the node's result shape, batch kept."""
    dims = [d for d in call.node.results[0].shape[1:] if d is not None]
    return call.x.reshape(len(call.x), *dims)


def pad(call: Call, fill: float = 0) -> Array:
    """Returns the operand with rows and columns of `fill` around it."""
    op = cast(Pad, call.node.op)
    margins = ((0, 0), (op.top, op.bottom), (op.left, op.right), (0, 0))
    return np.pad(call.x, margins, constant_values=fill)


def _dequantize(call: Call) -> Array:
    quant = call.types[0].quant
    return call.x.astype(np.float32) if quant is None else quant.dequantize(call.x)


FLOAT: Mapping[str, Kernel] = {
    "constant": lambda call: call.node.weight("value").real(),
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "relu": lambda call: np.maximum(call.x, 0),
    "relu6": lambda call: np.clip(call.x, 0, 6),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "sigmoid": _sigmoid,
    "tanh": lambda call: np.tanh(call.x),
    "hard_swish": _hard_swish,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "mean": _mean,
    "concat": concat,
    "reshape": reshape,
    "pad": pad,
    "resize_bilinear": resize.bilinear,
    "resize_nearest": resize.nearest,
    **LANDMARK,
    "dequantize": _dequantize,
    "conv2d_transpose": _conv2d_transpose,
    "softmax": _softmax,
    "exp": lambda call: np.exp(call.x),
    "sqrt": lambda call: np.sqrt(call.x),
    "rsqrt": lambda call: 1 / np.sqrt(call.x),
    "square": lambda call: np.square(call.x),
    "abs": lambda call: np.abs(call.x),
    "div": _div,
    "sum": _sum,
    **ARRANGE,
}
