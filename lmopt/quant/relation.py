"""One value of a quantized graph beside the float value it stands for, up to where it is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node, Value
from lmopt.ir.op import Op
from lmopt.ir.ops import Input
from lmopt.ir.types import Quant
from lmopt.quant.interval import Interval, extremes
from lmopt.quant.kernel_error import ERRORS
from lmopt.quant.transfer import UNIT, Moments, Noise, result_shape

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Relation:
    """A quantized value beside the float value it stands for."""

    twin: Value
    f: Interval
    d: Interval
    noise: Noise | None
    moments: Moments
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Track:
    """What is known of a quantized value."""

    q: Interval
    relation: Relation | None


@dataclass(frozen=True, eq=False)
class Step:
    """A node of the quantized graph at its last moment: computed, not yet clamped.

    Attributes:
        q: What its result can be.
        error: What its kernel adds to the difference.
    """

    node: Node
    q: Interval
    error: Floats | float

    def clamped(self, x: Interval) -> Interval:
        """Returns what is stored of real values."""
        return x.clipped(*self._ends)

    def usual(self, shift: Floats | float) -> Interval | None:
        """Returns the float values that the grid was made for; None for a float32 result."""
        span = storage_span(self.node)
        if span is None:
            return None
        half = _grid(self.node).scale[0] / 2
        ends = Interval.of(np.full(result_shape(self.node), span[0] - half), span[1] + half)
        return Interval.of(ends.low - shift, ends.high - shift)

    def finish(self, before: Relation, f: Interval, usual: Interval | None, narrow: bool) -> Track:
        """Returns the track behind activation and clamping.

        Args:
            before: The relation, d not yet with this node's own error, f behind the activation.
            f: Float values before the activation.
            usual: Float values that the grid was made for.
            narrow: Whether only such values are to be thought of.
        """
        op = self.node.op
        result = before.f
        d = before.d + Interval.around(self.error)
        if narrow and usual is not None:
            result = result.meet(usual)
            f = f.meet(Interval(*_before_activation(op, usual)))
        q = self.q.meet(f + d)
        stored = self.clamped(q)
        d = self._kept(f, d).meet(stored - result)
        if self.node.results[0].quant is not None:
            d = d + read_back(stored)
        reason = before.reason or f"%{self.node.name}: a sum may not fit into 32 bits"
        relation = replace(
            before, f=result, d=d, noise=self._noisy(before), reason="" if d.finite else reason
        )
        return Track(stored, relation)

    def _kept(self, f: Interval, d: Interval) -> Interval:
        """Returns what activation and clamping leave of differences d from float values f.

        The stored value grows with d, so that the ends of d give the ends of the result; over f it
        is a line between the places where one of the two functions bends.
        """
        low, high = self._ends
        kind = getattr(self.node.op, "activation", "none")
        if not (np.isfinite(low) or np.isfinite(high)):
            return d

        def over(move: Floats, unknown: float) -> Interval:
            def difference(x: Floats) -> Floats:
                made = np.clip(x + move, low, high) - _activate(kind, x)
                return np.where(np.isnan(made), unknown, made)

            with np.errstate(invalid="ignore"):
                return extremes(difference, f, (low - move, high - move, 0.0, 6.0))

        return Interval(over(d.low, -np.inf).low, over(d.high, np.inf).high)

    def _noisy(self, before: Relation) -> Noise | None:
        """Returns the noise with this kernel's own rounding, behind its activation."""
        noise = before.noise
        if noise is None or self.node.results[0].quant is None:
            return noise
        if self.node.op.kind in ERRORS:
            own = _grid(self.node).scale[0] ** 2 / 12
            noise = Noise(noise.mean, noise.variance + own)
        elif isinstance(self.node.op, Input) and np.any(self.error):
            noise = Noise(noise.mean, noise.variance + np.square(self.error) / 3)
        if getattr(self.node.op, "activation", "none") == "none":
            return noise
        share = before.moments.positive
        mean = share * noise.mean
        return Noise(mean, share * (noise.variance + noise.mean**2) - mean**2)

    @property
    def _ends(self) -> tuple[float, float]:
        """Returns the real values at which the node clamps."""
        kind = getattr(self.node.op, "activation", "none")
        span = storage_span(self.node)
        low, high = (-np.inf, np.inf) if span is None else span
        if kind != "none":
            low = max(low, 0.0)
        if kind == "relu6":
            scale = None if span is None else _grid(self.node).scale[0]
            high = min(high, 6.0 if scale is None else np.floor(6 / scale + 0.5) * scale)
        return low, high


def _before_activation(op: Op, usual: Interval) -> tuple[Floats, Floats]:
    """Returns between which values an activation's operand lies when its result is usual."""
    kind = getattr(op, "activation", "none")
    if kind == "none":
        return usual.low, usual.high
    low = np.full_like(usual.low, -np.inf)
    top = 6.0 if kind == "relu6" else np.inf
    return low, np.where((usual.high > 0) & (usual.high < top), usual.high, np.inf)


def _grid(node: Node) -> Quant:
    grid = node.results[0].quant
    assert grid is not None
    return grid


def read_back(stored: Interval) -> Interval:
    """Returns what reading stored values back in float32 can add."""
    return Interval.around(4 * UNIT * stored.magnitude)


def storage_span(node: Node) -> tuple[float, float] | None:
    """Returns the least and the greatest real value a node's result can store; None for float32."""
    type = node.results[0]
    if type.quant is None:
        return None
    scale, zero = type.quant.scale[0], type.quant.zero_point[0]
    low, high = type.dtype.bounds
    return (low - zero) * scale, (high - zero) * scale


def _activate(kind: str, x: Floats) -> Floats:
    return x if kind == "none" else np.clip(x, 0, 6 if kind == "relu6" else None)


def activated(op: Op, x: Interval) -> Interval:
    """Returns what an op's fused activation makes of real values."""
    kind = getattr(op, "activation", "none")
    return x.mapped(lambda side: _activate(kind, side))
