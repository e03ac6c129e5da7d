"""How errors pass through functions, maxima and the ops on heatmaps: see `lmopt.quant.transfer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.interp.landmark import pixel_centers
from lmopt.ir.interp.window import taps
from lmopt.ir.ops import HeatmapDecode, LandmarkHeatmap, LeakyRelu, MaxPool2D
from lmopt.quant.interval import Interval, extremes
from lmopt.quant.transfer import UNIT, Noise, Rule, Site, exact, result_shape

Floats = NDArray[np.float64]
Function = Callable[[Node, Floats], Floats]


@dataclass(frozen=True)
class Pointwise(Rule):
    """A function of every element.

    Attributes:
        function: The function.
        slope: Where it has a slope, that slope; at a jump of the slope, any of both.
        turns: Where the function has its local extremes.
        bends: Where the slope has its local extremes, or jumps.
        least: Below it the function is no number.
        kinked: Whether it is straight on both sides of 0.
    """

    function: Function
    slope: Function
    turns: tuple[float, ...] = ()
    bends: tuple[float, ...] = ()
    least: float = -np.inf
    kinked: bool = False

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        found = self._over(node, self.function, x[0], self.turns)
        return _anything_where(x[0].low < self.least, found)

    def difference(self, site: Site) -> Interval:
        hull = site.q[0].join(site.f[0])
        slope = self._over(site.twin, self.slope, hull, self.bends)
        found = _anything_where(hull.low <= self.least, slope * site.d[0])
        if "alpha" not in site.node.weights:
            return found
        changed = exact(site.node.weight("alpha")) - exact(site.twin.weight("alpha"))
        return found + site.q[0].clipped(-np.inf, 0) * Interval.of(changed, changed)

    def noise(self, site: Site) -> Noise:
        was, spread = site.noise[0], site.moments[0]
        if self.kinked:
            # the error of an element comes by one of two slopes
            up, down = (self.slope(site.twin, np.full_like(spread.mean, k)) for k in (1.0, -1.0))
            share = spread.positive
            gain, square = share * up + (1 - share) * down, share * up**2 + (1 - share) * down**2
        else:
            gain = self.slope(site.twin, spread.mean)
            square = gain**2
        mean = gain * was.mean
        return Noise(mean, square * (was.variance + was.mean**2) - mean**2)

    def _over(
        self, node: Node, function: Function, x: Interval, turns: Sequence[float]
    ) -> Interval:
        """Returns the extremes of a function over an interval, from both sides of each turn."""
        sides = [np.nextafter(turn, way) for turn in turns for way in (-np.inf, np.inf)]
        with np.errstate(all="ignore"):
            return extremes(lambda place: function(node, place), x, [*turns, *map(float, sides)])


def _anything_where(where: NDArray[np.bool_], x: Interval) -> Interval:
    lost = where | np.isnan(x.low) | np.isnan(x.high)
    return Interval(np.where(lost, -np.inf, x.low), np.where(lost, np.inf, x.high))


def _step(low: float, high: float = np.inf) -> Function:
    return lambda _, x: np.asarray((x > low) & (x < high), np.float64)


def _sigmoid(_: Node, x: Floats) -> Floats:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1 + small))


def _leak(node: Node) -> float | Floats:
    if "alpha" in node.weights:
        return exact(node.weight("alpha"))
    return float(np.float32(cast(LeakyRelu, node.op).alpha))


def _hard_swish_slope(_: Node, x: Floats) -> Floats:
    return np.where(x < -3, 0.0, np.where(x > 3, 1.0, (2 * x + 3) / 6))


_LEAKY = Pointwise(
    lambda node, x: np.where(x > 0, x, _leak(node) * x),
    lambda node, x: np.where(x > 0, 1.0, _leak(node) * np.ones_like(x)),
    turns=(0.0,),
    bends=(0.0,),
    kinked=True,
)
POINTWISE: dict[str, Rule] = {
    "relu": Pointwise(lambda _, x: np.maximum(x, 0), _step(0), bends=(0.0,), kinked=True),
    "relu6": Pointwise(lambda _, x: np.clip(x, 0, 6), _step(0, 6), bends=(0.0, 6.0), kinked=True),
    "leaky_relu": _LEAKY,
    "prelu": _LEAKY,
    "sigmoid": Pointwise(
        _sigmoid, lambda _, x: _sigmoid(_, x) * (1 - _sigmoid(_, x)), bends=(0.0,)
    ),
    "tanh": Pointwise(lambda _, x: np.tanh(x), lambda _, x: 1 - np.tanh(x) ** 2, bends=(0.0,)),
    "hard_swish": Pointwise(
        lambda _, x: x * np.clip(x + 3, 0, 6) / 6, _hard_swish_slope, (-3.0, -1.5), (-3.0, 3.0)
    ),
    "exp": Pointwise(lambda _, x: np.exp(x), lambda _, x: np.exp(x)),
    "sqrt": Pointwise(lambda _, x: np.sqrt(x), lambda _, x: 0.5 / np.sqrt(x), least=0.0),
    "rsqrt": Pointwise(
        lambda _, x: 1 / np.sqrt(x),
        lambda _, x: -0.5 * x**-1.5,
        least=float(np.finfo(np.float32).tiny),
    ),
    "square": Pointwise(lambda _, x: x * x, lambda _, x: 2 * x, turns=(0.0,)),
    "abs": Pointwise(lambda _, x: np.abs(x), lambda _, x: np.sign(x), turns=(0.0,), bends=(0.0,)),
}


class MaxPool(Rule):
    """The largest element of every window."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return x[0].mapped(lambda side: self._most(node, side))

    def difference(self, site: Site) -> Interval:
        # the winner of the one run loses at most its own error in the other
        low, high = -self._most(site.node, -site.d[0].low), self._most(site.node, site.d[0].high)
        return Interval(low, high)

    def noise(self, site: Site) -> Noise:
        # whichever element wins: the mean over the window
        was = site.noise[0]
        mean, variance, count = (
            np.asarray(sum(self._views(site.node, side, 0.0)))
            for side in (was.mean, was.variance, np.ones_like(was.mean))
        )
        return Noise(mean / count, variance / count)

    def _most(self, node: Node, x: Floats) -> Floats:
        return np.asarray(np.maximum.reduce(self._views(node, x, -np.inf)))

    def _views(self, node: Node, x: Floats, fill: float) -> list[Floats]:
        op = cast(MaxPool2D, node.op)
        return list(taps(x, op.size, op.stride, (1, 1), op.padding, fill))

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> float:
        return 0.0


class Extreme(Rule):
    """The larger or the smaller of two operands."""

    def __init__(self, pick: Callable[[Floats, Floats], Floats]) -> None:
        """Keeps np.maximum or np.minimum."""
        self._pick = pick

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return Interval(self._pick(x[0].low, x[1].low), self._pick(x[0].high, x[1].high))

    def difference(self, site: Site) -> Interval:
        return site.d[0].join(site.d[1])

    def noise(self, site: Site) -> Noise:
        a, b = site.noise
        return Noise((a.mean + b.mean) / 2, (a.variance + b.variance) / 2)

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> float:
        return 0.0


class Softmax(Rule):
    """Shares that sum to 1 along the last axis."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return _shares(x[0])

    def difference(self, site: Site) -> Interval:
        return _share_change(site.f[0], site.d[0])

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> float:
        return _at_most_one(super().slack(node, x, result))


def _at_most_one(slack: Floats | float) -> float:
    """Returns the slack of results between 0 and 1, whatever the operands."""
    return min(1.0, float(np.max(slack)))


def _shares(x: Interval) -> Interval:
    if not x.finite:
        return Interval.of(np.zeros_like(x.low), 1.0)
    low, high = (_share(own, other) for own, other in ((x.low, x.high), (x.high, x.low)))
    return Interval(low, high)


def _share(own: Floats, others: Floats) -> Floats:
    """Returns the share of each element when the others of its row are as given."""
    top = np.maximum(own, others).max(axis=-1, keepdims=True)
    grown, rest = np.exp(own - top), np.exp(others - top)
    around = np.maximum(rest.sum(axis=-1, keepdims=True) - rest, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nan_to_num(grown / (grown + around), nan=1.0))


def _share_change(f: Interval, d: Interval) -> Interval:
    """Returns by how much shares of f change when d is added: every ratio is between two powers."""
    own = _shares(f)
    if not d.finite:
        return Interval.of(np.zeros_like(d.low), 1.0) - own
    with np.errstate(over="ignore"):
        least = np.exp(d.low - d.high.max(axis=-1, keepdims=True))
        most = np.exp(d.high - d.low.min(axis=-1, keepdims=True))
    return own * Interval(least - 1, most - 1)


class Decode(Rule):
    """Landmarks of heatmaps, between the centres of the outermost pixels."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        shape = result_shape(node)
        return Interval(np.zeros(shape), np.ones(shape))

    def difference(self, site: Site) -> Interval:
        op, whole = cast(HeatmapDecode, site.node.op), self.values(site.node, ())
        if op.method == "argmax":  # another pixel may win, wherever it is
            return whole - whole
        maps, moved = (
            Interval(*(self._rows(op.beta * side) for side in (x.low, x.high)))
            for x in (site.f[0], site.d[0])
        )
        height, width = site.f[0].low.shape[1:3]
        reach = [(pixel_centers(n)[-1] - pixel_centers(n)[0]) / 2 for n in (width, height)]
        # shares sum to 1 before and after, so that what one gains others lose
        total = _share_change(maps, moved).meet(_any_change(maps)).magnitude.sum(axis=-1)
        radius = (total[..., None] * np.array(reach)).reshape(result_shape(site.node))
        return Interval.around(radius).meet(whole - whole)

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> float:
        op = cast(HeatmapDecode, node.op)
        size = float(x[0].magnitude.max(initial=0.0)) if op.method == "softargmax" else 0.0
        return _at_most_one(16 * UNIT * (op.beta * size + 1))

    def _rows(self, x: Floats) -> Floats:
        return x.transpose(0, 3, 1, 2).reshape(len(x), x.shape[3], -1)


def _any_change(x: Interval) -> Interval:
    """Returns how far shares can move at all."""
    return Interval(np.full_like(x.low, -1.0), np.ones_like(x.low))


class NearestLandmark(Rule):
    """1 / (1 + distance in pixels), which changes no faster than the landmarks move."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        shape = result_shape(node)
        return Interval(np.zeros(shape), np.ones(shape))

    def difference(self, site: Site) -> Interval:
        height, width = cast(LandmarkHeatmap, site.node.op).size
        shape, whole = result_shape(site.node), self.values(site.node, ())
        points = site.d[0].magnitude.reshape(-1, 2) * np.array([width, height])
        furthest = float(np.hypot(points[:, 0], points[:, 1]).max())
        return Interval.around(np.full(shape, furthest)).meet(whole - whole)

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> float:
        return _at_most_one(super().slack(node, x, result))


class Warp(Rule):
    """Pixels taken from elsewhere in the map, wherever that may be."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        image = x[0]
        low, high = image.low.min(axis=(1, 2)), image.high.max(axis=(1, 2))
        ones = np.ones(result_shape(node))
        return Interval(low[:, None, None] * ones, high[:, None, None] * ones)

    def difference(self, site: Site) -> Interval:
        q, f = (self.values(site.node, x) for x in (site.q, site.f))
        return q - f

    def slack(self, node: Node, x: Sequence[Interval], result: Interval) -> Floats | float:
        return super().slack(node, x[:1], result)


class Transform(Rule):
    """Landmarks moved by a transform."""

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return _moved(x[0], x[1], node) + _shift(x[1], node)

    def difference(self, site: Site) -> Interval:
        turned = _moved(site.d[0], site.q[1], site.node) + _moved(site.f[0], site.d[1], site.node)
        return turned + _shift(site.d[1], site.node)


def _moved(points: Interval, transform: Interval, node: Node) -> Interval:
    """Returns points times the matrix of a transform."""
    pairs = Interval(*(side.reshape(1, -1, 1, 2) for side in (points.low, points.high)))
    matrix = Interval(*(side[:, None, :, :2] for side in (transform.low, transform.high)))
    product = pairs * matrix
    sums = (side.sum(axis=-1).reshape(result_shape(node)) for side in (product.low, product.high))
    return Interval(*sums)


def _shift(transform: Interval, node: Node) -> Interval:
    count = result_shape(node)[1] // 2
    return Interval(*(np.tile(side[..., 2], count) for side in (transform.low, transform.high)))


class Unbounded(Rule):
    """An op that makes a small difference as large as it likes.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: str) -> None:
        """Keeps the reason."""
        self.reason = reason

    def values(self, node: Node, x: Sequence[Interval]) -> Interval:
        return Interval.anything(result_shape(node))

    def difference(self, site: Site) -> Interval:
        return Interval.anything(result_shape(site.node))
