"""Sliding windows as shifted views: what convolutions and pools of both arithmetics share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.op import spread_size, window_size

Array = NDArray[Any]
Pair = tuple[int, int]


def taps(
    x: Array, kernel: Pair, stride: Pair, dilation: Pair, padding: str, fill: float
) -> Iterator[Array]:
    """Returns, tap by tap in row order, the operand elements under that tap of every window.

    Shapes:
        x: [batch, height, width, channels]; each result: [batch, out height, out width, channels].
    """
    out_h = window_size(x.shape[1], kernel[0], stride[0], dilation[0], padding)
    out_w = window_size(x.shape[2], kernel[1], stride[1], dilation[1], padding)
    rows = _margins(x.shape[1], out_h, kernel[0], stride[0], dilation[0], padding)
    columns = _margins(x.shape[2], out_w, kernel[1], stride[1], dilation[1], padding)
    if any((*rows, *columns)):
        x = np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=fill)
    for row in range(kernel[0]):
        top = row * dilation[0]
        for column in range(kernel[1]):
            left = column * dilation[1]
            yield x[
                :,
                top : top + (out_h - 1) * stride[0] + 1 : stride[0],
                left : left + (out_w - 1) * stride[1] + 1 : stride[1],
            ]


def _margins(size: int, out: int, kernel: int, stride: int, dilation: int, padding: str) -> Pair:
    if padding == "valid":
        return 0, 0
    missing = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return missing // 2, missing - missing // 2


def window_counts(shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: str) -> Array:
    """Returns how many elements of the picture each window covers, padding not counted.

    Shapes:
        returns [1, out height, out width, 1].
    """
    ones = np.ones((1, shape[1], shape[2], 1), np.int64)
    return np.asarray(sum(taps(ones, kernel, stride, (1, 1), padding, 0)))


def convolve(
    x: Array, kernel: Array, stride: Pair, dilation: Pair, padding: str, groups: int
) -> Array:
    """Returns the convolution of `x`, zero-padded, in the arithmetic of the operands' type.

    Shapes:
        x: [batch, height, width, channels]; kernel: [height, width, channels / groups, filters].
    """
    high, wide, depth, filters = kernel.shape
    views = list(taps(x, (high, wide), stride, dilation, padding, 0))
    share = filters // groups
    parts = []
    for group in range(groups):
        channels = slice(group * depth, (group + 1) * depth)
        columns = np.concatenate([view[..., channels] for view in views], axis=-1)
        matrix = kernel[..., group * share : (group + 1) * share].reshape(-1, share)
        parts.append(np.matmul(columns, matrix))
    return parts[0] if groups == 1 else np.concatenate(parts, axis=-1)


def convolve_transposed(x: Array, kernel: Array, stride: Pair, padding: str) -> Array:
    """Returns the transposed convolution of `x`, in the arithmetic of the operands' type.

    Shapes:
        x: [batch, height, width, channels]; kernel: [height, width, channels, filters].
    """
    sides, out = x.shape[1:3], []
    cuts = []
    for size, window, step in zip(sides, kernel.shape, stride, strict=False):
        reach = (size - 1) * step + window
        length = spread_size(size, window, step, padding)
        cuts.append(max(reach - length, 0) // 2)
        out.append((max(reach, cuts[-1] + length), length))
    (high, height), (wide, width) = out
    full = np.zeros((len(x), high, wide, kernel.shape[3]), np.result_type(x, kernel))
    for row in range(kernel.shape[0]):
        rows = slice(row, row + (sides[0] - 1) * stride[0] + 1, stride[0])
        for column in range(kernel.shape[1]):
            columns = slice(column, column + (sides[1] - 1) * stride[1] + 1, stride[1])
            full[:, rows, columns] += np.matmul(x, kernel[row, column])
    return full[:, cuts[0] : cuts[0] + height, cuts[1] : cuts[1] + width]


def convolve_depthwise(
    x: Array, kernel: Array, stride: Pair, dilation: Pair, padding: str
) -> Array:
    """Returns the depthwise convolution of `x`, zero-padded.

    Shapes:
        x: [batch, height, width, channels]; kernel: [height, width, channels, multiplier].
    """
    high, wide, channels, multiplier = kernel.shape
    flat = kernel.reshape(high * wide, channels * multiplier)
    if multiplier > 1:
        x = np.repeat(x, multiplier, axis=-1)
    views = taps(x, (high, wide), stride, dilation, padding, 0)
    return np.asarray(sum(view * weight for view, weight in zip(views, flat, strict=True)))
