"""Units of channels in which what shares a scale loses little to rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import AvgPool2D, Concat, Mean
from lmopt.ir.scaling import ScaleMap, Scales
from lmopt.ir.types import Shape
from lmopt.quant.weights import KERNEL_AXIS

Array = NDArray[np.float64]

FLOOR = 2.0**-8
"""The least part of a tensor's range that a channel's counts as, silent ones too: one step."""

TOLERANCE = 1e-3
"""Change of logarithmic scales below which the evening of ranges has settled."""

MOST_ROUNDS = 100
"""Rounds after which the evening of ranges ends in any case; PFLD settles in about 30."""

SEARCH_ROUNDS = 60
"""Steps of the search for least noise; 300 take four times as long for 1 % less of it."""

_DOUBLINGS = 4
SHARPNESS = 2**_DOUBLINGS
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
        taps: Size of the window.
        read, made: Units of the operand's and of the result's channels.
    """

    node: Node
    most: Array
    taps: int
    read: NDArray[np.int64]
    made: NDArray[np.int64]

    @property
    def is_depthwise(self) -> bool:
        return self.node.op.kind == "depthwise_conv2d"

    def scaled(self, scales: Scales) -> Array:
        """Returns `most` in other units."""
        made = scales[self.made]
        return (
            self.most
            * scales[self.read][:, None]
            / (made.reshape(self.most.shape) if self.is_depthwise else made)
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
            found.append(_Kernel(node, window.max(0), len(window), sides["in"], sides["out"]))
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
        for kernel in kernels:
            for ids, ranges, sign in _sides(kernel, scales, per_channel):
                most = ranges.max(initial=0.0)
                if most > 0:
                    logs = np.log(np.maximum(ranges, FLOOR * most))
                    np.add.at(wanted, ids, sign * (logs - logs.mean()))
                    np.add.at(weight, ids, 1.0)
        # half the way: both sides of a kernel move at once
        step = 0.5 * np.divide(wanted, weight, out=np.zeros(len(scales)), where=weight > 0)
        step[~units.free] = 0.0
        scales = scales * np.exp(step)
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            break
    return scales


def _sides(
    kernel: _Kernel, scales: Scales, per_channel: bool
) -> Iterator[tuple[NDArray[np.int64], Array, int]]:
    """Yields units, ranges and, for each side of a kernel, whether scales divide or multiply."""
    most = kernel.scaled(scales)
    if not per_channel:
        made = most.reshape(-1) if kernel.is_depthwise else most.max(axis=0)
        yield kernel.made, made, 1
        yield kernel.read, most.max(axis=1), -1
    elif not kernel.is_depthwise:  # what counts is the share in each output channel's range
        share = most / np.maximum(most.max(axis=0), np.finfo(np.float64).tiny)
        yield kernel.read, share.max(axis=1), -1


def quiet_scales(
    graph: Graph,
    units: ScaleMap,
    statistics: Mapping[Value, ChannelStatistics],
    stored: Sequence[Value],
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

    gains = _gains(graph, units)
    terms: list[_Stored | _Weights] = [
        _Stored(units.of[value], statistics[value].peak, gains[value])
        for value in stored
        if units.free[units.of[value]].any()
    ]
    for kernel in _kernels(graph, units):
        power = statistics[kernel.node.inputs[0]].power
        if not (kernel.is_depthwise and per_channel):  # there a unit changes nothing
            terms.append(_Weights(kernel, power, gains[kernel.node.value], per_channel))
    free = np.flatnonzero(units.free)

    def noise(logs: Array) -> tuple[float, Array]:
        sigma, slope = np.zeros(len(units.free)), np.zeros(len(units.free))
        sigma[free] = logs
        total = sum(term.add(sigma, slope) for term in terms)
        # its logarithm: the search then stops at a relative change
        return float(np.log(total)), slope[free] / total

    scales = np.ones(len(units.free))
    if not len(free) or not sum(term.add(np.zeros(len(scales)), scales.copy()) for term in terms):
        return scales
    most = float(np.log(MOST_SCALE))
    found = minimize(
        noise,
        np.zeros(len(free)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-most, most)] * len(free),
        options={"maxiter": SEARCH_ROUNDS},
    )
    scales[free] = np.exp(found.x)
    return scales


def _gains(graph: Graph, units: ScaleMap) -> dict[Value, Array]:
    """Returns the noise power in the answers per noise power of each value's channels.

    Powers are sums over pixels. Noise is taken to be independent everywhere, and activations that
    cut off at 0 to let half of it through.
    """
    gains = {node.value: np.zeros(len(units.of[node.value])) for node in graph.nodes}
    for _, value in graph.outputs:
        gains[value] += 1.0
    for node in reversed(graph.nodes):
        made, start = gains[node.value], 0
        if getattr(node.op, "activation", node.op.kind) in ("relu", "relu6"):
            made = made / 2
        for value in node.inputs:
            width = len(units.of[value])
            passed = made
            if isinstance(node.op, Concat) and len(made) != width:
                passed, start = made[start : start + width], start + width
            gains[value] += _passed(node, passed, width, graph.type(value).shape)
    return gains


def _passed(node: Node, made: Array, width: int, shape: Shape) -> Array:
    """Returns the gain of an operand's channels from that of the result's."""
    if node.op.kind in KERNEL_AXIS:
        square = (
            (node.weight("kernel").real().astype(np.float64) ** 2)
            .reshape(-1, *node.weight("kernel").type.shape[-2:])
            .sum(axis=0)
        )
        if node.op.kind == "depthwise_conv2d":
            return np.asarray((square * made.reshape(square.shape)).sum(axis=1))
        passed = np.asarray(square @ made)
        return passed if len(passed) == width else np.tile(passed, width // len(passed))
    area = 1
    if isinstance(node.op, Mean):
        area = (shape[1] or 1) * (shape[2] or 1)
    elif isinstance(node.op, AvgPool2D):
        area = node.op.size[0] * node.op.size[1]
    if len(made) == width:
        return made / area
    if len(made) % width == 0:  # pixels beside channels: a flatten
        return np.asarray(made.reshape(-1, width).sum(axis=0))
    return np.full(width, made.mean())


@dataclass(frozen=True)
class _Stored:
    """The noise of a stored value: its step squared times what each channel counts."""

    ids: NDArray[np.int64]
    peak: Array
    gain: Array

    def add(self, sigma: Array, slope: Array) -> float:
        """Returns the noise at logarithmic scales `sigma`, its gradient added to `slope`."""
        own = sigma[self.ids]
        range2, share = _soft_square(self.peak * np.exp(-own))
        spread = self.gain * np.exp(2 * own)
        total = spread.sum()
        np.add.at(slope, self.ids, 2 * range2 * (spread - total * share))
        return float(range2 * total)


@dataclass(frozen=True)
class _Weights:
    """The noise of a kernel's entries, each of which meets a channel's power."""

    kernel: _Kernel
    power: Array
    gain: Array
    per_channel: bool

    def add(self, sigma: Array, slope: Array) -> float:
        """Returns the noise at logarithmic scales `sigma`, its gradient added to `slope`."""
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
        most = kernel.most * np.exp(read)[:, None] * np.exp(-made)
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
        np.add.at(
            slope, kernel.read, 2 * (total * share.sum(axis=1) - factor * arriving * spread.sum())
        )
        np.add.at(
            slope, kernel.made, 2 * (factor * arriving.sum() * spread - total * share.sum(axis=0))
        )
        return float(total)


def _soft_square(values: Array, axis: int | None = None) -> tuple[Array, Array]:
    """Returns the square of nearly the maximum, and what share of its slope each value has."""
    most = values.max(axis=axis, keepdims=True)
    most = np.where(most > 0, most, 1.0)
    powers = values / most
    for _ in range(_DOUBLINGS):
        powers *= powers
    total = powers.sum(axis=axis, keepdims=True)
    share = np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)
    square = (most * total ** (1 / SHARPNESS)) ** 2
    return (square.reshape(()) if axis is None else square.squeeze(axis)), share
