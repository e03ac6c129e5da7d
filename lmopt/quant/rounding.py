"""Kernels rounded so that what they give errs least, not so that they lie nearest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.ops import Conv2D, Dense, DepthwiseConv2D
from lmopt.ir.types import Weight
from lmopt.pipeline.services import Moments
from lmopt.quant.weights import RoundedKernel

DAMPING = 0.01
"""Part of the mean variance that every operand is given on top, so that none is without."""

MOST_TAPS = 4096
"""Taps of the largest kernel that is rounded so: the work grows with their third power."""

Array = NDArray[np.float64]


def can_round(node: Node) -> bool:
    """Returns whether a kernel's operands are simple enough, and few enough."""
    op = node.op
    if isinstance(op, DepthwiseConv2D):
        return op.multiplier == 1
    if not isinstance(op, Conv2D | Dense) or (isinstance(op, Conv2D) and op.groups > 1):
        return False
    kernel = node.weight("kernel").type
    return kernel.elements // (kernel.shape[-1] or 1) <= MOST_TAPS


def round_kernel(node: Node, nearest: Weight, moments: Moments) -> RoundedKernel:
    """Returns a node's kernel rounded so that what it gives errs least.

    The taps are rounded one after the other, those whose operands vary most first; those not yet
    rounded take up the error, as far as their operands vary alike. A bias takes up the mean error;
    where there is none, it counts as error.

    Args:
        node: A float node that `can_round`.
        nearest: Its kernel rounded to the nearest, for grid and type.
        moments: Of its operands.

    Source: Frantar et al., "GPTQ", 2023 (arXiv:2210.17323), section 3, with the covariance for the
        Hessian where a bias takes up the mean.
    """
    grid, kernel = nearest.type.quant, node.weight("kernel").real().astype(np.float64)
    assert grid is not None
    least, greatest = nearest.type.dtype.bounds
    ends = (least + 1, greatest)  # -127 and 1: a kernel's range is narrow
    deep = isinstance(node.op, DepthwiseConv2D)
    channels = kernel.shape[-2] if deep else 1
    moved = np.moveaxis(kernel, -2, 0) if deep else kernel
    slices = moved.reshape(channels, -1, kernel.shape[-1])
    stored, shift = np.empty_like(slices), np.zeros((channels, kernel.shape[-1]))
    scales, zeros = np.array(grid.scale), np.array(grid.zero_point)
    for index, real in enumerate(slices):
        own = slice(index, index + 1) if deep and len(scales) > 1 else slice(None)
        scale, zero = scales[own], zeros[own]
        mean, hessian = moments.mean[index], moments.covariance[index]
        with_bias = "bias" in node.weights
        if not with_bias:
            hessian = hessian + np.outer(mean, mean)
        stored[index] = _rounded(real, hessian, scale, zero, ends)
        if with_bias:
            shift[index] = mean @ (real - (stored[index] - zero) * scale)
    whole = stored.reshape(moved.shape).astype(nearest.type.dtype.numpy)
    back = np.moveaxis(whole, 0, -2) if deep else whole
    return RoundedKernel(Weight.of(np.ascontiguousarray(back), grid), shift.reshape(-1))


def _rounded(
    real: Array, hessian: Array, scale: Array, zero: NDArray[np.int64], ends: tuple[int, int]
) -> Array:
    taps = len(real)
    damping = DAMPING * float(np.trace(hessian)) / taps
    if damping <= 0:  # its operands never vary: nothing to choose by
        return np.asarray(np.clip(np.rint(real / scale) + zero, *ends))
    order = np.argsort(-np.diag(hessian))
    left = real[order]
    inverse = np.linalg.inv(hessian[np.ix_(order, order)] + damping * np.eye(taps))
    share = np.linalg.cholesky(inverse).T
    stored = np.empty_like(left)
    for k in range(taps):
        stored[k] = np.clip(np.rint(left[k] / scale) + zero, *ends)
        error = (left[k] - (stored[k] - zero) * scale) / share[k, k]
        left[k + 1 :] -= np.outer(share[k, k + 1 :], error)
    back = np.empty_like(stored)
    back[order] = stored
    return back
