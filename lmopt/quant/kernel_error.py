"""What each integer kernel rounds away by itself, in steps of its result.

The rules follow `lmopt.ir.interp.integer` and `lmopt.ir.interp.activation`, function by function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.interp.activation import power_of_scale
from lmopt.ir.interp.fixedpoint import Multiplier
from lmopt.ir.interp.integer import HEADROOM_BITS, has_wide_sums
from lmopt.ir.ops import LeakyRelu
from lmopt.ir.types import DType, Quant, TensorType
from lmopt.quant.interval import Interval
from lmopt.quant.rules import interpolated, resize_shares

Floats = NDArray[np.float64]
KernelSet = Literal["reference", "default"]
SINGLE = 2.0**-22
"""Relative error of a factor put together in float32."""
_SHORT = 2.0**-15
"""Relative error of a factor of 15 bits."""
_OF_FUNCTION: Mapping[str, tuple[float, float]] = {"sigmoid": (2.0, 14.0), "tanh": (4.0, 25.0)}
"""Steps of 16-bit functions; the second where the operand's scale counts as a power of two.

Lines between the table's entries, a factor that was cut off or is 0.07 % off; the default kernels
of a power of two add 7 and 12 (ROUNDING.md).
"""

ANOTHER_STEP = frozenset(
    {
        "conv2d",
        "depthwise_conv2d",
        "conv2d_transpose",
        "dense",
        "leaky_relu",
        "add",
        "sub",
        "mul",
        "mean",
        "resize_bilinear",
        "quantize",
    }
)
"""Ops whose default kernels differ from the reference ones, by one step at most.

Source: lmopt/ir/interp/ROUNDING.md.
"""


def kernel_error(
    node: Node,
    types: Sequence[TensorType],
    x: Sequence[Interval],
    exact: Interval,
    kernels: KernelSet,
) -> Floats | float:
    """Returns the most that a kernel's result, before clamping, is away from the exact one.

    Args:
        node: With a result on a grid.
        types: Of the operands.
        x: What the operands can be.
        exact: What the result is in real arithmetic.
        kernels: The runtime's plain kernels, or those it takes by default.

    Units: those of the values; infinite where a sum may not fit into 32 bits.
    """
    scale = _grid(node.results[0]).scale[0]
    rule = ERRORS.get(node.op.kind)
    steps = 0.0 if rule is None else rule(node, types, x, exact.magnitude / scale)
    more = 1.0 if kernels == "default" and node.op.kind in ANOTHER_STEP else 0.0
    return np.asarray((steps + more) * scale)


def _grid(type: TensorType) -> Quant:
    assert type.quant is not None
    return type.quant


def _ratio(node: Node, types: Sequence[TensorType]) -> float:
    return _grid(types[0]).scale[0] / _grid(node.results[0]).scale[0]


def _fixed(factor: Multiplier, sums: Floats | float) -> Floats:
    """Returns the rounding of `Multiplier.apply` on integers of at most a size."""
    left, right = np.maximum(factor.shift, 0), np.maximum(-factor.shift, 0)
    rounding = 0.5 * 2.0**-right + 0.5 * (right > 0)
    relative = np.abs(sums) * 2.0 ** (factor.shift - 30.0)
    return np.where(np.abs(sums) * 2.0**left < 2**31, rounding + relative, np.inf)


def _sums(node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats) -> Floats:
    kernel = node.weight("kernel").type.quant
    assert kernel is not None
    result = _grid(node.results[0]).scale[0]
    factors = np.array([_grid(types[0]).scale[0] * each / result for each in kernel.scale])
    sums = steps / factors
    wide = has_wide_sums(node)
    fits = (sums < 2.0 ** (47 if wide else 31)) & (steps < 2.0**31)
    if node.op.kind == "dense":
        return np.where(fits, 0.5 + steps * SINGLE, np.inf)
    if wide:
        return np.where(fits, 0.5 + steps * _SHORT, np.inf)
    found = _fixed(Multiplier.of(factors.tolist()), sums)
    return found + steps * SINGLE if node.results[0].dtype is DType.U8 else found


def _scaled(
    node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats
) -> Floats:
    """The operand's steps times one factor, or another (with alpha) where negative."""
    ratio = _ratio(node, types)
    inputs = x[0].magnitude / _grid(types[0]).scale[0]
    found = _fixed(Multiplier.of(ratio), inputs)
    if isinstance(node.op, LeakyRelu):
        found = np.maximum(found, _fixed(Multiplier.of(ratio * node.op.alpha), inputs))
    if "alpha" in node.weights:
        alpha = node.weight("alpha").type.quant
        assert alpha is not None
        found = np.maximum(found, _fixed(Multiplier.of(ratio * alpha.scale[0]), inputs * 255))
    return found + SINGLE * inputs * ratio


def _quantize(
    node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats
) -> Floats:
    return 0.5 + steps * SINGLE if types[0].quant is None else _scaled(node, types, x, steps)


def _table(node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats) -> float:
    if node.results[0].dtype is DType.I16:
        other = power_of_scale(node.op.kind, _grid(types[0]).scale[0]) is not None
        return _OF_FUNCTION[node.op.kind][other]
    # functions of the C library miss by some units of float32: far less than this
    return 0.5 + 2.0**-8


def _hard_swish(
    node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats
) -> Floats:
    """Sixteen bits: 1.5 units of the scaled operand, and 4 units of 2**-15 in the gate."""
    ratio = _ratio(node, types)
    right = -Multiplier.of(float(np.float32(ratio) / np.float32(128))).shift
    identity = x[0].magnitude / _grid(types[0]).scale[0] * ratio
    return np.asarray(0.5 + 1.5 * 2.0**-right + identity * (2.0**-13 + 2.0**-14))


def _addends(
    node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats
) -> Floats:
    """One unit for each operand at a small part of twice the larger scale, then the sum."""
    result, bits = _grid(node.results[0]).scale[0], HEADROOM_BITS[node.results[0].dtype]
    unit = 2 * max(_grid(type).scale[0] for type in types) / 2.0**bits / result
    return _fixed(Multiplier.of(unit), steps / unit + 2) + 2 * unit


def _product(
    node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats
) -> Floats:
    factor = _ratio(node, types) * _grid(types[1]).scale[0]
    return _fixed(Multiplier.of(factor), steps / factor) + steps * SINGLE


def _mean(node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats) -> Floats:
    ratio = Multiplier.of(_ratio(node, types))
    count = x[0].low.shape[1] * x[0].low.shape[2]
    shift = min(count.bit_length() - 1, 32, 31 + int(ratio.shift))
    mantissa = (ratio.mantissa << shift) // count
    factor = Multiplier(mantissa, ratio.shift - shift)
    size = float(mantissa) * 2.0 ** (float(factor.shift) - 31)
    cut = steps / max(float(mantissa), 1.0)
    return _fixed(factor, steps / size if size else np.inf) + cut


def _halves(node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats) -> float:
    return 0.5


def _resize(
    node: Node, types: Sequence[TensorType], x: Sequence[Interval], steps: Floats
) -> Floats | float:
    if node.results[0].dtype is DType.U8:
        return 0.5 + 2.0**-10
    size = x[0].low.shape[1:3]
    (rows, columns), (near, beside) = (resize_shares(node, size, integer=k) for k in (False, True))
    inputs = x[0].magnitude / _grid(types[0]).scale[0]
    moved = interpolated(np.abs(near - rows), np.abs(beside), inputs)
    return 0.5 + moved + interpolated(np.abs(rows), np.abs(beside - columns), inputs)


_Error = Callable[[Node, Sequence[TensorType], Sequence[Interval], Floats], Floats | float]
ERRORS: Mapping[str, _Error] = {
    **dict.fromkeys(("conv2d", "conv2d_transpose", "depthwise_conv2d", "dense"), _sums),
    **dict.fromkeys(("relu", "relu6", "leaky_relu", "prelu"), _scaled),
    "quantize": _quantize,
    "sigmoid": _table,
    "tanh": _table,
    "hard_swish": _hard_swish,
    "add": _addends,
    "sub": _addends,
    "mul": _product,
    "mean": _mean,
    "avg_pool2d": _halves,
    "resize_bilinear": _resize,
}
"""By op kind; the others are exact."""
