"""Rounding by what a kernel gives: less error there, on the same grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Node
from lmopt.ir.op import Op
from lmopt.ir.ops import Conv2D, Conv2DTranspose, Dense, DepthwiseConv2D
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.services import Moments
from lmopt.quant.grid import activation_grid, asymmetric_kernel, symmetric_kernel
from lmopt.quant.rounding import MOST_TAPS, can_round, round_kernel
from lmopt.quant.weights import KERNEL_AXIS, integer_weights
from lmopt_passes.scheme import INT8

RNG = np.random.default_rng(0)


def node_of(op: Op, shape: tuple[int, ...], channels: int) -> Node:
    edit = Edit("one")
    edit.output("y", edit.add("k", op, edit.input("x", (None, 8, 8, channels))))
    weights = {"kernel": RNG.normal(size=shape).astype(np.float32)}
    if op.use_bias:  # type: ignore[attr-defined]
        outputs = channels * shape[-1] if op.kind == "depthwise_conv2d" else shape[-1]
        weights["bias"] = RNG.normal(size=outputs).astype(np.float32)
    edit.set_weights("k", **weights)
    return edit.done().node("k")


def alike(slices: int, rows: int, taps: int) -> np.ndarray:
    """Operands that vary alike, as those of neighbouring pixels do."""
    common = RNG.normal(size=(slices, rows, 1))
    return 0.5 + common + 0.2 * RNG.normal(size=(slices, rows, taps))


def moments(rows: np.ndarray) -> Moments:
    mean = rows.mean(axis=1)
    return Moments(
        mean, rows.swapaxes(1, 2) @ rows / rows.shape[1] - mean[:, :, None] * mean[:, None]
    )


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("storage", [DType.I8, DType.U8])
def test_what_a_convolution_gives_errs_less(storage: DType, use_bias: bool) -> None:
    node = node_of(Conv2D(6, use_bias=use_bias), (3, 3, 4, 6), 4)
    kernel = node.weight("kernel").real()
    nearest = symmetric_kernel(kernel, 3) if storage is DType.I8 else asymmetric_kernel(kernel)
    rows = alike(1, 500, 36)
    made = round_kernel(node, nearest, moments(rows))
    grid = nearest.type.quant
    assert grid is not None and nearest.array is not None
    assert made.kernel.array.shape == kernel.shape
    assert (
        made.kernel.array.min() >= storage.bounds[0] + 1
        and made.kernel.array.max() <= storage.bounds[1]
    )
    assert np.abs(made.kernel.array - nearest.array.astype(int)).max() >= 1

    def error(stored: np.ndarray, shift: float | np.ndarray) -> float:
        off = grid.dequantize(stored.astype(storage.numpy)) - kernel
        return float(np.square(rows[0] @ off.reshape(36, 6) + shift).mean())

    plain = error(nearest.array, 0.0)
    assert error(made.kernel.array, made.shift) < 0.3 * plain
    if use_bias:
        mean = rows[0].mean(0) @ (grid.dequantize(made.kernel.array) - kernel).reshape(36, 6)
        np.testing.assert_allclose(mean + made.shift, 0, atol=1e-5)
    else:
        assert not made.shift.any()


def test_every_channel_of_a_depthwise_kernel_is_rounded_by_its_own_operands() -> None:
    node = node_of(DepthwiseConv2D(), (3, 3, 5, 1), 5)
    kernel = node.weight("kernel").real()
    nearest = symmetric_kernel(kernel, KERNEL_AXIS["depthwise_conv2d"])
    rows = alike(5, 400, 9)
    rows[2] *= (-1) ** np.arange(9)  # what is right for its neighbours is wrong for it
    made = round_kernel(node, nearest, moments(rows))
    assert made.kernel.array.shape == kernel.shape and made.shift.shape == (5,)
    grid = nearest.type.quant
    assert grid is not None and nearest.array is not None
    plain, rounded = (
        np.array(
            [
                np.var(
                    rows[k] @ (grid.dequantize(stored.astype(np.int8)) - kernel)[:, :, k].ravel()
                )
                for k in range(5)
            ]
        )
        for stored in (nearest.array, made.kernel.array)
    )
    assert rounded.sum() < 0.5 * plain.sum()
    assert rounded[2] < plain[2]


def test_operands_that_vary_apart_are_rounded_to_the_nearest() -> None:
    node = node_of(Dense(3), (8, 3), 8)
    nearest = symmetric_kernel(node.weight("kernel").real(), 1)
    apart = Moments(np.zeros((1, 8)), np.diag(np.arange(1.0, 9.0))[None])
    np.testing.assert_array_equal(round_kernel(node, nearest, apart).kernel.array, nearest.array)
    never = Moments(np.zeros((1, 8)), np.zeros((1, 8, 8)))
    np.testing.assert_array_equal(round_kernel(node, nearest, never).kernel.array, nearest.array)


def test_what_is_too_large_or_has_other_operands_stays() -> None:
    assert can_round(node_of(Dense(3), (8, 3), 8))
    assert can_round(node_of(DepthwiseConv2D(), (3, 3, 5, 1), 5))
    assert not can_round(node_of(Conv2D(4, groups=2), (3, 3, 2, 4), 4))
    assert not can_round(node_of(DepthwiseConv2D(multiplier=2), (3, 3, 4, 2), 4))
    assert not can_round(node_of(Conv2DTranspose(4), (3, 3, 4, 4), 4))
    deep = MOST_TAPS // 9 + 1
    assert not can_round(node_of(Conv2D(2), (3, 3, deep, 2), deep))


def test_a_kernel_rounded_on_another_grid_counts_for_nothing() -> None:
    node = node_of(Dense(3), (8, 3), 8)
    nearest = symmetric_kernel(node.weight("kernel").real(), 1)
    made = round_kernel(node, nearest, moments(alike(1, 300, 8)))
    operand = activation_grid(ValueRange(0.0, 1.0), DType.I8)
    assert integer_weights(node, [operand], INT8, made)["kernel"] == made.kernel
    coarse = replace(made, kernel=symmetric_kernel(2 * node.weight("kernel").real(), 1))
    assert integer_weights(node, [operand], INT8, coarse)["kernel"] == nearest
