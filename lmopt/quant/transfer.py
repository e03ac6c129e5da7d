"""How errors pass through ops, in real arithmetic: what holds for certain, and what to expect.

A rule speaks of two runs of one op. The quantized run holds q, the float run f, and d = q - f. What
the op's own kernel rounds is not in here, nor is the activation fused into it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.interp.window import convolve, convolve_depthwise, convolve_transposed
from lmopt.ir.ops import BatchNorm, Conv2D, Conv2DTranspose, DepthwiseConv2D
from lmopt.ir.types import Weight
from lmopt.quant.interval import Interval

Floats = NDArray[np.float64]
UNIT = 2.0**-24
"""Relative error of one operation in float32, rounded to nearest."""


@dataclass(frozen=True, eq=False)
class Noise:
    """Mean and variance of an error, per element."""

    mean: Floats
    variance: Floats


@dataclass(frozen=True, eq=False)
class Moments:
    """How the values of a float tensor are spread, per element.

    Attributes:
        mean, variance: Of the element over pictures.
        positive: Share of pictures in which it is above 0.
    """

    mean: Floats
    variance: Floats
    positive: Floats

    @classmethod
    def even(cls, span: Interval) -> Moments:
        """Returns the moments of values spread evenly over an interval."""
        width = span.high - span.low
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(width > 0, span.high / width, span.high > 0)
        return cls(span.center, width**2 / 12, np.clip(share, 0, 1))


@dataclass(frozen=True, eq=False)
class Site:
    """A node of the quantized graph beside the node of the float graph it stands for.

    Attributes:
        node, twin: The two, with their weights.
        q, f, d: Per operand: quantized value, float value, their difference.
        noise: The expected part of d per operand.
        moments: How the float operands are spread.
    """

    node: Node
    twin: Node
    q: tuple[Interval, ...]
    f: tuple[Interval, ...]
    d: tuple[Interval, ...]
    noise: tuple[Noise, ...] = ()
    moments: tuple[Moments, ...] = ()


class Rule(ABC):
    """What is known of an op's results from what is known of its operands."""

    @abstractmethod
    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        """Returns what the results can be, in real arithmetic with the node's own weights."""

    @abstractmethod
    def difference(self, site: Site) -> Interval:
        """Returns the difference of the two results."""

    def noise(self, site: Site) -> Noise | None:
        """Returns the expected difference, or None where linear propagation means nothing."""
        return None

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> Floats | float:
        """Returns by how much float32 can miss the real result: functions to 8 units."""
        sizes = [float(each.magnitude.max(initial=0.0)) for each in (*x, result)]
        return 16 * UNIT * sum(sizes)


class Kernel(Rule):
    """Convolutions and dense layers, whose kernels and biases may differ."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        kernel = exact(node.weight("kernel"))
        return _through(node, kernel, x[0]).shifted(_bias(node))

    def difference(self, site: Site) -> Interval:
        kernel, other = (exact(n.weight("kernel")) for n in (site.node, site.twin))
        found = _through(site.node, kernel, site.d[0])
        if not np.array_equal(kernel, other):
            found = found + _through(site.node, kernel - other, site.f[0])
        return found.shifted(_bias(site.node) - _bias(site.twin))

    def noise(self, site: Site) -> Noise:
        kernel, other = (exact(n.weight("kernel")) for n in (site.node, site.twin))
        change, was, spread = kernel - other, site.noise[0], site.moments[0]
        mean = _apply(site.node, kernel, was.mean) + _apply(site.node, change, spread.mean)
        variance = _apply(site.node, kernel**2, was.variance)
        variance = variance + _apply(site.node, change**2, spread.variance)
        return Noise(mean + _bias(site.node) - _bias(site.twin), variance)

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> Floats:
        kernel = exact(node.weight("kernel"))
        terms = (
            kernel[..., 0].size if node.op.kind != "depthwise_conv2d" else kernel[..., 0, 0].size
        )
        largest = float(x[0].magnitude.max(initial=0.0))
        return 2 * (terms + 2) * UNIT * (largest * absolute_sums(node) + np.abs(_bias(node)))


def absolute_sums(node: Node) -> Floats:
    """Returns the sum of the absolute kernel entries that go into each output channel."""
    kernel = np.abs(exact(node.weight("kernel")))
    if node.op.kind == "depthwise_conv2d":
        return np.asarray(kernel.sum(axis=(0, 1)).ravel())
    return np.asarray(kernel.sum(axis=tuple(range(kernel.ndim - 1))))


def exact(weight: Weight) -> Floats:
    """Returns the real values of a weight without the rounding to float32."""
    grid = weight.type.quant
    if grid is None or weight.array is None:
        return weight.real().astype(np.float64)
    shape = [1] * weight.array.ndim
    if grid.axis is not None:
        shape[grid.axis] = -1
    scale, zero = (
        np.reshape(np.asarray(k, np.float64), shape) for k in (grid.scale, grid.zero_point)
    )
    return np.asarray((weight.array.astype(np.float64) - zero) * scale)


def bias_shift(node: Node, twin: Node) -> Floats | float:
    """Returns how far the biases of two kernels are apart, per channel; 0 for other ops."""
    return _bias(node) - _bias(twin) if "kernel" in node.weights else 0.0


def _bias(node: Node) -> Floats | float:
    return exact(node.weights["bias"]) if "bias" in node.weights else 0.0


def _apply(node: Node, kernel: Floats, x: Floats) -> Floats:
    op = node.op
    if isinstance(op, Conv2D):
        return convolve(x, kernel, op.stride, op.dilation, op.padding, op.groups)
    if isinstance(op, Conv2DTranspose):
        return convolve_transposed(x, kernel, op.stride, op.padding)
    if isinstance(op, DepthwiseConv2D):
        return convolve_depthwise(x, kernel, op.stride, op.dilation, op.padding)
    return np.asarray(x @ kernel)


def _through(node: Node, kernel: Floats, x: Interval) -> Interval:
    if not x.finite:
        return Interval.anything(result_shape(node))
    center, radius = _apply(node, kernel, x.center), _apply(node, np.abs(kernel), x.radius)
    return Interval(center - radius, center + radius)


def result_shape(node: Node) -> tuple[int, ...]:
    """Returns the shape of a node's result for a batch of one."""
    return tuple(1 if d is None else d for d in node.results[0].shape)


class Norm(Rule):
    """Batch normalization: a factor and a shift per channel."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        factor, shift = _affine(node)
        return (x[0] * Interval.of(factor, factor)).shifted(shift)

    def difference(self, site: Site) -> Interval:
        (factor, shift), (was, before) = _affine(site.node), _affine(site.twin)
        found = site.d[0] * Interval.of(factor, factor)
        return (found + site.f[0] * Interval.of(factor - was, factor - was)).shifted(shift - before)

    def noise(self, site: Site) -> Noise:
        factor, _ = _affine(site.node)
        return Noise(factor * site.noise[0].mean, factor**2 * site.noise[0].variance)

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> Floats:
        factor, shift = _affine(node)
        mean = np.abs(exact(node.weight("mean")))
        return 16 * UNIT * (np.abs(factor) * (x[0].magnitude + mean) + np.abs(shift))


def _affine(node: Node) -> tuple[Floats, Floats]:
    gamma, beta, mean, variance = (
        exact(node.weight(key)) for key in ("gamma", "beta", "mean", "variance")
    )
    factor = gamma / np.sqrt(variance + cast(BatchNorm, node.op).epsilon)
    return factor, beta - mean * factor


class Positive(Rule):
    """Linear ops without weights or negative coefficients: moving, averaging, interpolating."""

    def __init__(
        self,
        apply: Callable[[Node, Sequence[Floats], int], Floats],
        terms: Callable[[Node, tuple[int, ...]], int] | None = None,
    ) -> None:
        """Keeps the op.

        Args:
            apply: Returns the result for operands, with coefficients to a power.
            terms: Returns how many elements of an operand of a shape go into one of the result;
                None where it is one.
        """
        self._apply = apply
        self._terms = terms

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        if self._terms is not None and not x[0].finite:
            return Interval.anything(result_shape(node))
        low = self._apply(node, [each.low for each in x], 1)
        return Interval(low, self._apply(node, [each.high for each in x], 1))

    def difference(self, site: Site) -> Interval:
        return self.values(site.node, site.d)

    def noise(self, site: Site) -> Noise:
        mean = self._apply(site.node, [each.mean for each in site.noise], 1)
        return Noise(mean, self._apply(site.node, [each.variance for each in site.noise], 2))

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> float:
        if self._terms is None:
            return 0.0
        # a sum of n numbers: n units of the sum of their sizes
        size = float(x[0].magnitude.max(initial=0.0))
        ones = self._apply(node, [np.ones_like(x[0].low)], 1)
        terms = self._terms(node, x[0].low.shape)
        return float(2 * (terms + 2) * UNIT * size * ones.max(initial=0.0))


class Sum2(Rule):
    """Sums and differences of two operands."""

    def __init__(self, sign: int) -> None:
        """Keeps the sign of the second operand."""
        self._sign = sign

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return x[0] + x[1] if self._sign > 0 else x[0] - x[1]

    def difference(self, site: Site) -> Interval:
        return self.values(site.node, site.d)

    def noise(self, site: Site) -> Noise:
        a, b = site.noise
        return Noise(np.asarray(a.mean + self._sign * b.mean), a.variance + b.variance)


class Product(Rule):
    """Products of two operands."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return x[0] * x[1]

    def difference(self, site: Site) -> Interval:
        return site.d[0] * site.q[1] + site.f[0] * site.d[1]

    def noise(self, site: Site) -> Noise:
        (a, b), (x, y) = site.noise, site.moments
        mean = y.mean * a.mean + x.mean * b.mean
        squares = [m.mean**2 + m.variance for m in (x, y)]
        return Noise(mean, squares[1] * a.variance + squares[0] * b.variance)


class Quotient(Rule):
    """Quotients of two operands."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return x[0] / x[1]

    def difference(self, site: Site) -> Interval:
        return (site.d[0] - site.f[0] / site.f[1] * site.d[1]) / site.q[1]

    def noise(self, site: Site) -> Noise:
        (a, b), (x, y) = site.noise, site.moments
        slope = -x.mean / y.mean**2
        mean = a.mean / y.mean + slope * b.mean
        return Noise(mean, a.variance / y.mean**2 + slope**2 * b.variance)
