"""Limits of the runtime's integer kernels: what codegen refuses, and quantization keeps to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lmopt.ir.types import DType, Quant

FIXED_GRIDS: Mapping[tuple[str, DType], Quant] = {
    ("sigmoid", DType.I8): Quant.per_tensor(1 / 256, -128),
    ("sigmoid", DType.U8): Quant.per_tensor(1 / 256, 0),
    ("tanh", DType.I8): Quant.per_tensor(1 / 128, 0),
    ("tanh", DType.U8): Quant.per_tensor(1 / 128, 128),
    ("sigmoid", DType.I16): Quant.per_tensor(1 / 32768, 0),
    ("tanh", DType.I16): Quant.per_tensor(1 / 32768, 0),
}
"""The only grids the kernels of these ops give.

Source: TensorFlow Lite 8-bit quantization specification; 16 bits: activations.cc, Prepare.
"""

STEP_RATIOS: Mapping[str, int] = {
    "conv2d": 256,
    "conv2d_transpose": 256,
    "depthwise_conv2d": 256,
    "dense": 256,
    "add": 256,
    "sub": 256,
    "mul": 256,
    "hard_swish": 128,
}
"""How many steps of the result one step of what is summed or multiplied may be.

Beyond 256 the result has no room for a single step, and XNNPACK refuses the whole file (kernels) or
gives wrong numbers (sums and products).

Source: tried on LiteRT 2.3; hard_swish: activations.cc, Prepare.
"""


def operand_step(kind: str, operands: Sequence[Quant], kernel: Quant | None) -> float:
    """Returns one step of what an op of `STEP_RATIOS` sums or multiplies, as a real number.

    Args:
        kind: Of the op.
        operands: Their grids.
        kernel: Grid of the kernel, where the op has one.
    """
    steps = [grid.scale[0] for grid in operands]
    if kernel is not None:
        return math.prod([*steps, max(kernel.scale)])
    return math.prod(steps) if kind == "mul" else max(steps)
