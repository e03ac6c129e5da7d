"""Weights of integer graphs: kernels and biases on their grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.ops import DepthwiseConv2D
from lmopt.ir.types import DType, Quant, Weight
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.grid import (
    asymmetric_grid,
    asymmetric_kernel,
    integer_bias,
    symmetric_grid,
    symmetric_kernel,
)

KERNEL_AXIS: Mapping[str, int] = {
    "conv2d": 3,
    "conv2d_transpose": 3,
    "depthwise_conv2d": 2,
    "dense": 1,
}
"""The output-channel dimension of each kernel."""


@dataclass(frozen=True, eq=False)
class RoundedKernel:
    """A kernel that is not rounded to the nearest.

    Attributes:
        kernel: As it is stored.
        shift: What a bias is moved by, per output.
    """

    kernel: Weight
    shift: NDArray[np.float64]


def integer_weights(
    node: Node,
    operands: Sequence[Quant],
    scheme: QuantScheme,
    rounded: RoundedKernel | None = None,
) -> dict[str, Weight]:
    """Returns the weights of a node as they are stored.

    Args:
        node: A float node.
        operands: Grids of its operands.
        scheme: Storage and granularity.
        rounded: Its kernel, where that is not rounded to the nearest. Where a bias needs another
            grid than it was rounded on, it counts for nothing.
    """
    stored: dict[str, Weight] = {}
    if "alpha" in node.weights:
        alpha = node.weight("alpha").real()
        signed = scheme.storage.kernel is DType.I8
        stored["alpha"] = symmetric_kernel(alpha, None) if signed else asymmetric_kernel(alpha)
    if "kernel" not in node.weights:
        return stored
    kernel = node.weight("kernel").real()
    axis, floor = _kernel_slices(node, operands[0], scheme)
    if scheme.storage.kernel is DType.I8:
        stored["kernel"] = symmetric_kernel(kernel, axis, floor=floor)
    else:
        stored["kernel"] = asymmetric_kernel(kernel, floor=float(floor.max()))
    grid = stored["kernel"].type.quant
    if rounded is not None and rounded.kernel.type != stored["kernel"].type:
        rounded = None
    if rounded is not None:
        stored["kernel"] = rounded.kernel
    if "bias" in node.weights and grid is not None:
        bias = node.weight("bias").real()
        if rounded is not None:
            bias = (bias + rounded.shift).astype(np.float32)
        stored["bias"] = integer_bias(bias, operands[0], grid, DType.I64)
        if scheme.storage is not DType.I16 or _sums_fit(node, **stored):
            stored["bias"] = integer_bias(bias, operands[0], grid)
    return stored


def _sums_fit(node: Node, kernel: Weight, bias: Weight) -> bool:
    """Returns whether 16-bit operands can do with sums of 32 bits, for which kernels are faster.

    The runtime's depthwise convolution has none of them.
    """
    assert kernel.array is not None and bias.array is not None
    if isinstance(node.op, DepthwiseConv2D):
        return False
    terms = np.abs(kernel.array.astype(np.int64)).sum(axis=tuple(range(kernel.array.ndim - 1)))
    most = -DType.I16.bounds[0] * terms + np.abs(bias.array)
    return bool(most.max() <= DType.I32.bounds[1])


def kernel_grid(node: Node, operand: Quant, scheme: QuantScheme) -> Quant:
    """Returns the grid of a node's kernel, given that of its operand."""
    kernel = node.weight("kernel").real()
    axis, floor = _kernel_slices(node, operand, scheme)
    if scheme.storage.kernel is DType.I8:
        return symmetric_grid(kernel, axis, floor=floor)
    return asymmetric_grid(kernel, floor=float(floor.max()))


def _kernel_slices(
    node: Node, operand: Quant, scheme: QuantScheme
) -> tuple[int | None, NDArray[np.float64]]:
    """Returns the axis with a scale per slice, or None, and the least scales.

    Below the least, a bias would not fit into 31 bits.
    """
    several = isinstance(node.op, DepthwiseConv2D) and node.op.multiplier > 1
    axis = KERNEL_AXIS[node.op.kind] if scheme.per_channel and not several else None
    if "bias" not in node.weights:
        return axis, np.zeros(1)
    bias = node.weight("bias").real().astype(np.float64)
    floor = np.abs(bias) / (operand.scale[0] * 2.0**30)
    return axis, floor if axis is not None else floor.max(keepdims=True)
