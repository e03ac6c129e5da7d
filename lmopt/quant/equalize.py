"""Units of channels in which those that share a scale have ranges alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.scaling import ScaleMap, Scales, weight_factors
from lmopt.quant.assign import KERNEL_AXIS

FLOOR = 2.0**-8
"""The least part of a tensor's range that a channel's counts as: one step. Silent ones have none."""

TOLERANCE = 1e-3
"""Relative change of scales below which a search has converged."""

MOST_ROUNDS = 100
"""Rounds after which a search ends; channels of PFLD settle in about 30."""


@dataclass(frozen=True)
class _Tensor:
    """Something whose elements share a scale.

    Attributes:
        ids: Unit of each channel.
        sign: 1 where a greater scale makes the channel's range greater, else -1.
        ranges: Largest magnitude of each channel, at present scales.
        weight: How much it counts.
    """

    ids: NDArray[np.int64]
    sign: int
    ranges: NDArray[np.float64]
    weight: float = 1.0


def equalizing_scales(
    graph: Graph,
    units: ScaleMap,
    peaks: Mapping[Value, NDArray[np.float64]],
    *,
    per_channel: bool,
    activation_weight: float = 1.0,
) -> Scales:
    """Returns the scale of every unit that makes the ranges of channels most alike.

    Minimized is the sum, over the tensors that have one scale each, of the variance of the
    logarithms of their channels' ranges. For two kernels in a row that is the solution of the
    paper; a sum, a concat or several readers add terms. Ranges of kernels depend on the units of
    both their sides, so that the search goes round until nothing moves.

    Args:
        graph: Float, with weights.
        units: Of the graph.
        peaks: Largest magnitude of every channel of activations, by value; none for an
            equalization of kernels alone.
        per_channel: Whether kernels have a scale per output channel: the ranges of their output
            channels then need not be alike.
        activation_weight: How much an activation counts against a kernel.

    Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.1 and appendix A.
    """
    scales = np.ones(len(units.free))
    kernels = [
        (node, np.abs(node.weight("kernel").real().astype(np.float64)))
        for node in graph.nodes
        if node.op.kind in KERNEL_AXIS and (units.free[units.of[node.value]].any()
        or units.free[units.of[node.inputs[0]]].any())
    ]
    for _ in range(MOST_ROUNDS):
        tensors = [t for node, kernel in kernels for t in _slices(node, kernel, units, scales, per_channel)]
        for value, peak in peaks.items():
            ids = units.of[value]
            tensors.append(_Tensor(ids, -1, peak / scales[ids], activation_weight))
        step = _step(tensors, len(scales))
        step[~units.free] = 0.0
        scales = scales * np.exp(step)
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    return scales


def _slices(
    node: Node, kernel: NDArray[np.float64], units: ScaleMap, scales: Scales, per_channel: bool
) -> Iterator[_Tensor]:
    """Yields the ranges of a kernel over its operand's channels and over its result's."""
    for factor in weight_factors(node, "kernel", units, scales):
        kernel = kernel * factor
    sides = units.sides(node)
    if node.op.kind == "depthwise_conv2d":
        if not per_channel:
            peak = kernel.max(axis=(0, 1)).reshape(-1)
            yield _Tensor(sides["out"], -1, peak)
            yield _Tensor(np.repeat(sides["in"], kernel.shape[3]), 1, peak)
        return
    axes = tuple(range(kernel.ndim - 2))
    both = kernel.max(axis=axes) if axes else kernel
    if not per_channel:
        yield _Tensor(sides["out"], -1, both.max(axis=0))
        yield _Tensor(sides["in"], 1, both.max(axis=1))
    else:
        # each output channel has a scale of its own: what counts is the share in it
        yield _Tensor(sides["in"], 1, (both / np.maximum(both.max(axis=0), 1e-30)).max(axis=1))


def _step(tensors: list[_Tensor], count: int) -> NDArray[np.float64]:
    """Returns the change of every logarithmic scale, half the way to the least squares solution."""
    wanted, weight = np.zeros(count), np.zeros(count)
    for tensor in tensors:
        most = tensor.ranges.max(initial=0.0)
        if most == 0:
            continue
        logs = np.log(np.maximum(tensor.ranges, FLOOR * most))
        np.add.at(wanted, tensor.ids, -tensor.sign * tensor.weight * (logs - logs.mean()))
        np.add.at(weight, tensor.ids, tensor.weight)
    return 0.5 * np.divide(wanted, weight, out=np.zeros(count), where=weight > 0)
