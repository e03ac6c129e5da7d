"""How far the runtime's default kernels may round from the interpreter, op by op."""

from __future__ import annotations

from collections.abc import Mapping

from lmopt.ir.interp.integer import INTEGER

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
