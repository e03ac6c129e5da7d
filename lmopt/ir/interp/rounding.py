"""How far the runtime's default kernels may round from the interpreter, op by op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmopt.ir.graph import Node
from lmopt.ir.interp.call import Array, Call, Kernel
from lmopt.ir.interp.evaluate import compute
from lmopt.ir.interp.integer import INTEGER
from lmopt.ir.interp.resize import bilinear_by_default
from lmopt.ir.types import TensorType

_BY_ONE_STEP = frozenset(
    {
        "add",
        "conv2d",
        "conv2d_transpose",
        "dense",
        "depthwise_conv2d",
        "leaky_relu",
        "mean",
        "mul",
        "quantize",
        "resize_bilinear",
        "sub",
    }
)

DEFAULT_STEPS: Mapping[str, int] = {kind: int(kind in _BY_ONE_STEP) for kind in INTEGER}
"""Largest difference per op kind, in steps of the result. Source: ROUNDING.md, measured."""

_BY_DEFAULT: Mapping[str, Kernel] = {"resize_bilinear": bilinear_by_default}


def compute_by_default(
    node: Node, operands: Sequence[Array], types: tuple[TensorType, ...]
) -> Array:
    """Returns what the default kernels come within `DEFAULT_STEPS` of; see `compute`."""
    kernel = _BY_DEFAULT.get(node.op.kind)
    if kernel is None or node.results[0].quant is None:
        return compute(node, operands, types)
    return kernel(Call(node, tuple(operands), types))
