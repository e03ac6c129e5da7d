"""The table of rules by which errors pass through ops: every op that computes, by kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.interp.arrange import ARRANGE
from lmopt.ir.interp.call import Call
from lmopt.ir.interp.call import Kernel as Moving
from lmopt.ir.interp.floating import concat, pad, reshape
from lmopt.ir.interp.resize import UNIT_BITS, integer_positions, nearest, positions
from lmopt.ir.interp.window import taps, window_counts
from lmopt.ir.ops import AvgPool2D, Mean, ResizeBilinear, Sum
from lmopt.quant.pointwise import (
    POINTWISE,
    Decode,
    Extreme,
    MaxPool,
    NearestLandmark,
    Softmax,
    Transform,
    Unbounded,
    Warp,
)
from lmopt.quant.transfer import Kernel, Norm, Positive, Product, Quotient, Rule, Sum2

Floats = NDArray[np.float64]


def _moving(kernel: Moving) -> Positive:
    return Positive(lambda node, x, _: np.asarray(kernel(Call(node, tuple(x), ())), np.float64))


def _average(node: Node, x: Sequence[Floats], power: int) -> Floats:
    op = cast(AvgPool2D, node.op)
    total = np.asarray(sum(taps(x[0], op.size, op.stride, (1, 1), op.padding, 0)))
    counts = window_counts(x[0].shape, op.size, op.stride, op.padding)
    return np.asarray(total / counts.astype(np.float64) ** power)


def _mean(node: Node, x: Sequence[Floats], power: int) -> Floats:
    total = x[0].sum(axis=(1, 2), keepdims=cast(Mean, node.op).keepdims)
    return np.asarray(total / float(math.prod(x[0].shape[1:3])) ** power)


def _sum(node: Node, x: Sequence[Floats], power: int) -> Floats:
    op = cast(Sum, node.op)
    return np.asarray(x[0].sum(axis=op.axes, keepdims=op.keepdims))


def _interpolate(node: Node, x: Sequence[Floats], power: int) -> Floats:
    rows, columns = resize_shares(node, x[0].shape[1:3])
    return interpolated(rows**power, columns**power, x[0])


def interpolated(rows: Floats, columns: Floats, x: Floats) -> Floats:
    """Returns a map [1, height, width, channels] times a matrix from each side."""
    return np.asarray(np.einsum("ih,nhwc,jw->nijc", rows, x, columns, optimize=True))


def resize_shares(
    node: Node, size: Sequence[int], *, integer: bool = False
) -> tuple[Floats, Floats]:
    """Returns how much of each row and column goes into each row and column of the result."""
    op = cast(ResizeBilinear, node.op)
    found = []
    for before, after in zip(size, op.size, strict=True):
        if integer:
            low, high, steps = integer_positions(before, after, op)
            share = steps / 2.0**UNIT_BITS
        else:
            low, high, single = positions(before, after, op)
            share = single.astype(np.float64)
        matrix, places = np.zeros((after, before)), np.arange(after)
        np.add.at(matrix, (places, low), 1 - share)
        np.add.at(matrix, (places, high), share)
        found.append(matrix)
    return found[0], found[1]


def _same(node: Node, x: Sequence[Floats], power: int) -> Floats:
    return x[0]


_FIT = (
    "similarity_fit divides by how far the landmarks lie apart, which can be as little as nothing"
)
_INVERSE = "invert_transform divides by a determinant that can be as little as nothing"
_ARRANGED: Mapping[str, Moving] = {
    **{kind: kernel for kind, kernel in ARRANGE.items() if kind not in ("maximum", "minimum")},
    "concat": concat,
    "reshape": reshape,
    "pad": pad,
    "resize_nearest": nearest,
}
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv2d", "conv2d_transpose", "depthwise_conv2d", "dense"), Kernel()),
    **{kind: _moving(kernel) for kind, kernel in _ARRANGED.items()},
    **POINTWISE,
    "batch_norm": Norm(),
    "add": Sum2(1),
    "sub": Sum2(-1),
    "mul": Product(),
    "div": Quotient(),
    "maximum": Extreme(np.maximum),
    "minimum": Extreme(np.minimum),
    "max_pool2d": MaxPool(),
    "avg_pool2d": Positive(_average, lambda node, _: math.prod(cast(AvgPool2D, node.op).size)),
    "mean": Positive(_mean, lambda _, shape: math.prod(shape[1:3])),
    "sum": Positive(_sum, lambda node, shape: math.prod(shape[k] for k in cast(Sum, node.op).axes)),
    "resize_bilinear": Positive(_interpolate, lambda node, _: 4),
    "softmax": Softmax(),
    "heatmap_decode": Decode(),
    "landmark_heatmap": NearestLandmark(),
    "warp": Warp(),
    "transform_landmarks": Transform(),
    "similarity_fit": Unbounded(_FIT),
    "invert_transform": Unbounded(_INVERSE),
    "quantize": Positive(_same),
    "dequantize": Positive(_same, lambda _node, _shape: 1),
}
"""Inputs and constants apart, which the walk over a graph starts from."""
