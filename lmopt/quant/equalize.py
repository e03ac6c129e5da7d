"""Units of channels in which what shares a scale loses little to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.scaling import ScaleMap, Scales, weight_factors
from lmopt.quant.assign import KERNEL_AXIS

Array = NDArray[np.float64]

FLOOR = 2.0**-8
"""The least part of a tensor's range that a channel's counts as: one step. Silent ones have none."""

TOLERANCE = 1e-3
"""Change of logarithmic scales below which the evening of ranges has settled."""

MOST_ROUNDS = 100
"""Rounds after which it ends in any case; channels of PFLD settle in about 30."""

SHARPNESS = 16
"""Power of the norm that stands for a maximum where a gradient is needed."""

MOST_SCALE = 2.0**6
"""Bound on the scales of a search: what is gained beyond is lost in the runtime's step ratios."""


@dataclass(frozen=True)
class ChannelStatistics:
    """What calibration knows of a value's channels.

    Attributes:
        peak: Largest magnitude, per channel.
        power: Mean square, per channel.
    """

    peak: Array
    power: Array


@dataclass(frozen=True)
class _Kernel:
    """A kernel that reads or makes channels whose units are free.

    Attributes:
        node: Its node.
        most: Largest magnitude over the window, [in, out], or [in, multiplier] of a depthwise one.
        square: Sum of squares over the window, likewise.
        taps: Size of the window.
        read, made: Units of the operand's and of the result's channels.
    """

    node: Node
    most: Array
    square: Array
    taps: int
    read: NDArray[np.int64]
    made: NDArray[np.int64]

    @property
    def is_depthwise(self) -> bool:
        return self.node.op.kind == "depthwise_conv2d"

    def scaled(self, scales: Scales) -> Array:
        """Returns `most` in other units."""
        made = scales[self.made]
        return self.most * scales[self.read][:, None] / (
            made.reshape(self.most.shape) if self.is_depthwise else made
        )


def _kernels(graph: Graph, units: ScaleMap) -> list[_Kernel]:
    found = []
    for node in graph.nodes:
        if node.op.kind not in KERNEL_AXIS:
            continue
        sides = units.sides(node)
        if units.free[sides["in"]].any() or units.free[sides["out"]].any():
            kernel = np.abs(node.weight("kernel").real().astype(np.float64))
            window = kernel.reshape(-1, *kernel.shape[-2:])
            found.append(
                _Kernel(
                    node, window.max(0), (window**2).sum(0), len(window), sides["in"], sides["out"]
                )
            )
    return found


def even_scales(graph: Graph, units: ScaleMap, *, per_channel: bool) -> Scales:
    """Returns the scale of every unit with which the channels of kernels have ranges alike.

    Minimized is the sum, over kernels and their two sides, of the variance of the logarithms of
    the channels' ranges. For two kernels in a row that is the solution of the paper; a sum, a
    concat or several readers add terms. The ranges of one side depend on the units of the other,
    so that the search goes round until nothing moves.

    Args:
        graph: Float, with weights.
        units: Of the graph.
        per_channel: Whether kernels have a scale per output channel: the ranges of their output
            channels then need not be alike.

    Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.1 and appendix A.
    """
    scales = np.ones(len(units.free))
    kernels = _kernels(graph, units)
    for _ in range(MOST_ROUNDS):
        wanted, weight = np.zeros(len(scales)), np.zeros(len(scales))

        def tell(ids: NDArray[np.int64], ranges: Array, sign: int) -> None:
            most = ranges.max(initial=0.0)
            if most > 0:
                logs = np.log(np.maximum(ranges, FLOOR * most))
                np.add.at(wanted, ids, sign * (logs - logs.mean()))  # noqa: B023
                np.add.at(weight, ids, 1.0)  # noqa: B023

        for kernel in kernels:
            most = kernel.scaled(scales)
            if kernel.is_depthwise:
                if not per_channel:
                    tell(kernel.made, most.reshape(-1), 1)
                    tell(kernel.read, most.max(axis=1), -1)
            elif per_channel:
                share = most / np.maximum(most.max(axis=0), np.finfo(np.float64).tiny)
                tell(kernel.read, share.max(axis=1), -1)
            else:
                tell(kernel.made, most.max(axis=0), 1)
                tell(kernel.read, most.max(axis=1), -1)
        step = 0.5 * np.divide(wanted, weight, out=np.zeros(len(scales)), where=weight > 0)
        step[~units.free] = 0.0
        scales = scales * np.exp(step)
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    return scales


def quiet_scales(
    graph: Graph,
    units: ScaleMap,
    statistics: Mapping[Value, ChannelStatistics],
    stored: Mapping[Value, object],
    *,
    per_channel: bool,
) -> Scales:
    """Returns the scale of every unit with which rounding makes the least noise in the answers.

    The noise is that of every kernel and every stored value, a step squared each, as independent
    kernels pass it on: squared kernel entries, from the answers backwards, say how much a channel
    counts. Minimized over the logarithms of the scales by L-BFGS.

    Args:
        graph: Float, with weights.
        units: Of the graph.
        statistics: Of what kernels read, and of `stored`.
        stored: Values that own a grid.
        per_channel: Whether kernels have a scale per output channel.
    """
    from scipy.optimize import minimize

    kernels = _kernels(graph, units)
    gain = _gains(graph, units, kernels)
    free = np.flatnonzero(units.free)
    terms: list[_Term] = []
    for value in stored:
        ids = units.of[value]
        if units.free[ids].any():
            terms.append(_Stored(ids, statistics[value].peak, gain[ids]))
    for kernel in kernels:
        power = statistics[kernel.node.inputs[0]].power
        if kernel.is_depthwise and per_channel:
            continue  # every channel has a scale of its own: its unit does not matter
        terms.append(_Weights(kernel, power, gain[kernel.made], per_channel))

    def noise(logs: Array) -> tuple[float, Array]:
        sigma = np.zeros(len(units.free))
        sigma[free] = logs
        slope = np.zeros(len(sigma))
        total = sum(term.add(sigma, slope) for term in terms)
        return total / start, slope[free] / start

    start = 1.0
    start = max(noise(np.zeros(len(free)))[0], np.finfo(np.float64).tiny)
    most = float(np.log(MOST_SCALE))
    found = minimize(
        noise,
        np.zeros(len(free)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-most, most)] * len(free),
        options={"maxiter": 300},
    )
    scales = np.ones(len(units.free))
    scales[free] = np.exp(found.x)
    return scales


def _gains(graph: Graph, units: ScaleMap, kernels: list[_Kernel]) -> Array:
    """Returns the noise power in the answers per noise power in a channel of each unit."""
    by_name = {kernel.node.name: kernel for kernel in kernels}
    gain = np.zeros(len(units.free))
    for _, value in graph.outputs:
        gain[units.of[value]] = 1.0
    for node in reversed(graph.nodes):
        kernel = by_name.get(node.name)
        if kernel is None:
            if node.inputs and not gain[units.of[node.inputs[0]]].any():
                for value in node.inputs:  # an op through which no unit goes
                    gain[units.of[value]] = gain[units.of[node.value]].mean()
            continue
        made = gain[kernel.made]
        passed = kernel.square * made.reshape(kernel.square.shape) if kernel.is_depthwise else (
            kernel.square * made
        )
        np.add.at(gain, kernel.read, passed.sum(axis=1))
    return gain


class _Term:
    """A part of the noise."""

    def add(self, sigma: Array, slope: Array) -> float:
        """Returns the part at logarithmic scales `sigma`, its gradient added to `slope`."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Stored(_Term):
    ids: NDArray[np.int64]
    peak: Array
    gain: Array

    def add(self, sigma: Array, slope: Array) -> float:
        own = sigma[self.ids]
        range2, share = _soft_square(self.peak * np.exp(-own))
        spread = self.gain * np.exp(2 * own)
        total = spread.sum()
        np.add.at(slope, self.ids, 2 * range2 * (spread - total * share))
        return float(range2 * total)


@dataclass(frozen=True)
class _Weights(_Term):
    kernel: _Kernel
    power: Array
    gain: Array
    per_channel: bool

    def add(self, sigma: Array, slope: Array) -> float:
        kernel = self.kernel
        read, made = sigma[kernel.read], sigma[kernel.made]
        arriving = self.power * np.exp(-2 * read)
        spread = self.gain * np.exp(2 * made)
        if kernel.is_depthwise:
            shape = kernel.most.shape
            range2, share = _soft_square(kernel.most * np.exp(read[:, None] - made.reshape(shape)))
            noise = arriving[:, None] * spread.reshape(shape) * kernel.taps
            total = noise.sum()
            change = 2 * range2 * (total * share - noise)
            np.add.at(slope, kernel.read, change.sum(axis=1))
            np.add.at(slope, kernel.made, -change.reshape(-1))
            return float(range2 * total)
        most = kernel.most * np.exp(read[:, None] - made)
        if self.per_channel:
            columns, share = _soft_square(most, axis=0)
            weights = columns * spread
            factor = kernel.taps * arriving.sum()
            total = factor * weights.sum()
            np.add.at(slope, kernel.read, 2 * factor * (share * weights).sum(axis=1))
            np.add.at(slope, kernel.read, -2 * arriving * kernel.taps * weights.sum())
            return float(total)
        range2, share = _soft_square(most)
        factor = kernel.taps * range2
        total = factor * arriving.sum() * spread.sum()
        np.add.at(slope, kernel.read, 2 * (total * share.sum(axis=1) - factor * arriving * spread.sum()))
        np.add.at(slope, kernel.made, 2 * (factor * arriving.sum() * spread - total * share.sum(axis=0)))
        return float(total)


def _soft_square(values: Array, axis: int | None = None) -> tuple[Array, Array]:
    """Returns the square of nearly the maximum, and what share of its slope each value has."""
    most = values.max(axis=axis, keepdims=True)
    most = np.where(most > 0, most, 1.0)
    powers = (values / most) ** SHARPNESS
    total = powers.sum(axis=axis, keepdims=True)
    share = np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)
    square = (most * total ** (1 / SHARPNESS)) ** 2
    return (square.reshape(()) if axis is None else square.squeeze(axis)), share
