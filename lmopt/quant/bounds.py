"""How far a quantized graph can be, and is to be expected, from its float graph; nothing is run.

The hard bound is interval arithmetic over both graphs at once: it holds for every input within the
stated ranges, and grows with depth, since intervals forget which errors cancel. The expected error
takes every rounding for noise of its own and sends its variance through the slopes of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.errors import GraphError
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Add,
    Constant,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Dequantize,
    Input,
    Quantize,
    Sub,
)
from lmopt.ir.types import Quant
from lmopt.quant.interval import Interval, extremes
from lmopt.quant.kernel_error import ERRORS, KernelSet, kernel_error
from lmopt.quant.pointwise import POINTWISE, Unbounded
from lmopt.quant.rules import RULES
from lmopt.quant.transfer import UNIT, Moments, Noise, Site, bias_shift, exact, result_shape

Floats = NDArray[np.float64]
_Biased = Conv2D | Conv2DTranspose | Dense | DepthwiseConv2D


@dataclass(frozen=True)
class InputRange:
    """What a float graph is fed.

    Attributes:
        low, high: Ends of the real values.
        rounding: How far the values of an integer input are from the real ones; None for half a
            step. 0 for inputs that lie on the grid, as the bytes of a picture do.
    """

    low: float
    high: float
    rounding: float | None = None


@dataclass(frozen=True, eq=False)
class ValueBound:
    """The error of one value of a quantized graph: quantized minus float.

    Attributes:
        twin: The value of the float graph it stands for, or None.
        error: What the error can be, per element, for a batch of one.
        expected: Root of the mean square error, per element, or None where linear propagation
            means nothing.
        reason: Why there is no finite bound; empty where there is one.
    """

    twin: Value | None
    error: Interval
    expected: Floats | None
    reason: str = ""

    @property
    def largest(self) -> float:
        """Returns the bound of the absolute error of any element."""
        return float(self.error.magnitude.max(initial=0.0))

    @property
    def rms(self) -> float | None:
        """Returns the expected error over all elements, as root of the mean square."""
        return None if self.expected is None else float(np.sqrt(np.mean(self.expected**2)))


@dataclass(frozen=True, eq=False)
class GraphBounds:
    """Bounds of the error of a quantized graph.

    Attributes:
        values: Of every value that stands for one of the float graph.
        outputs: Of the outputs, by name.
    """

    values: Mapping[Value, ValueBound]
    outputs: Mapping[str, ValueBound]


@dataclass(frozen=True, eq=False)
class _Relation:
    """A quantized value beside the float value it stands for."""

    twin: Value
    f: Interval
    d: Interval
    noise: Noise | None
    moments: Moments
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Track:
    """What is known of a quantized value."""

    q: Interval
    relation: _Relation | None


def error_bounds(
    reference: Graph,
    quantized: Graph,
    inputs: Mapping[str, InputRange] | None = None,
    *,
    statistics: Mapping[str, Moments] | None = None,
    within_grids: bool = False,
    kernels: KernelSet = "reference",
) -> GraphBounds:
    """Returns what separates a quantized graph from its float graph at most, and on average.

    Nodes belong together by name, op and operands. The bound is sound whatever the weights are: a
    graph compared with one whose channels were scaled differently only gets a wide one. Clipping of
    values beyond the calibrated ranges counts in the bound and not in the expected error.

    Args:
        reference: Float graph with folded batch norms: what the quantized graph was made of.
        quantized: Integer or mixed graph.
        inputs: Per input; by default what its grid, or that of the node that quantizes it, holds.
        statistics: How float values are spread, by node name; without them, evenly over the grids.
        within_grids: Holds for those inputs only whose float values stay within the grids of the
            quantized graph, as calibration meant them to.
        kernels: Whose rounding: the runtime's plain kernels, which the interpreter equals, or those
            that run by default.

    Raises:
        GraphError: An input has no range, or weights have no values.
    """
    return _Walk(reference, quantized, inputs or {}, statistics or {}, within_grids, kernels).done()


def landmark_pixels(error: Floats, contract: Contract) -> Floats:
    """Returns the distances in input pixels that errors of the contract's output mean.

    Shapes:
        error: The output's, for one face; returns [landmarks].
    """
    flat = np.asarray(error, np.float64).reshape(1, -1)
    points = contract.decode(flat) - contract.decode(np.zeros_like(flat))
    return np.asarray(np.hypot(*np.moveaxis(points * [contract.width, contract.height], -1, 0))[0])


@dataclass
class _Walk:
    """One pass over the quantized graph, the float graph beside it."""

    reference: Graph
    quantized: Graph
    ranges: Mapping[str, InputRange]
    statistics: Mapping[str, Moments]
    within_grids: bool
    kernels: KernelSet

    def done(self) -> GraphBounds:
        last = {value: node.name for node in self.quantized.nodes for value in node.inputs}
        kept = {value for _, value in self.quantized.outputs}
        tracks: dict[Value, _Track] = {}
        found: dict[Value, ValueBound] = {}
        for node in self.quantized.nodes:
            track = self._track(node, [tracks[value] for value in node.inputs])
            tracks[node.value] = track
            if track.relation is not None:
                found[node.value] = _bound(track.relation)
            for value in node.inputs:
                if last[value] == node.name and value not in kept:
                    tracks.pop(value, None)
        outputs = {
            name: self._output(name, value, tracks[value]) for name, value in self.quantized.outputs
        }
        return GraphBounds(found, outputs)

    def _track(self, node: Node, operands: Sequence[_Track]) -> _Track:
        if isinstance(node.op, Input):
            return self._input(node)
        if isinstance(node.op, Constant):
            return _Track(_point(node), None)
        rule, x = RULES[node.op.kind], [track.q for track in operands]
        real = rule.values(node, x)
        if node.results[0].quant is None:
            error = rule.slack(node, x, real)
        else:
            types = self.quantized.input_types(node)
            error = kernel_error(node, types, x, real, self.kernels)
        step = _Step(node, real + Interval.around(error), error)
        return self._related(step, operands) or self._by_range(step)

    def _input(self, node: Node) -> _Track:
        given = self.ranges.get(node.name) or self._default_range(node)
        shape, grid = result_shape(node), node.results[0].quant
        f = Interval.of(np.full(shape, given.low), given.high)
        rounding = given.rounding if grid is not None else 0.0
        if rounding is None:
            rounding = 0.0 if grid is None else grid.scale[0] * (0.5 + 2.0**-20)
        step = _Step(node, f + Interval.around(rounding), rounding)
        none = Interval.of(np.zeros(shape), 0.0)
        moments = self._moments(Value(node.name), f)
        relation = _Relation(node.value, f, none, Noise(none.low, none.low), moments)
        return step.finish(relation, f, f, self.within_grids)

    def _default_range(self, node: Node) -> InputRange:
        readers = [n for n, _ in self.quantized.users(node.value) if isinstance(n.op, Quantize)]
        spans = [span for n in (node, *readers) if (span := _storage_span(n)) is not None]
        if not spans:
            raise GraphError(
                "the range of a float32 input is not known",
                where=f"%{node.name}",
                hint="give its least and greatest value",
            )
        return InputRange(min(low for low, _ in spans), max(high for _, high in spans))

    def _moments(self, twin: Value, span: Interval) -> Moments:
        given = self.statistics.get(twin.node)
        return Moments.even(span) if given is None else given

    def _related(self, step: _Step, operands: Sequence[_Track]) -> _Track | None:
        node = step.node
        if isinstance(node.op, Quantize | Dequantize):
            before = operands[0].relation
            return None if before is None else step.finish(before, before.f, None, False)
        for twin in self._twins(node, operands):
            pairs = self._pairs(twin, operands)
            if len(pairs) == len(node.inputs):
                return self._computed(step, twin, operands, pairs)
        return _moved(step, operands)

    def _twins(self, node: Node, operands: Sequence[_Track]) -> list[Node]:
        """Returns nodes of the float graph that may be meant, the one of the same name first."""
        found = [self.reference.node(node.name)] if node.name in self.reference else []
        first = operands[0].relation
        if not found and first is not None:
            readers = {reader.name: reader for reader, _ in self.reference.users(first.twin)}
            found = [twin for name, twin in readers.items() if name not in self.quantized]
        return [
            twin
            for twin in found
            if _plain(node.op) == _plain(twin.op)
            and len(node.inputs) == len(twin.inputs)
            and result_shape(node) == result_shape(twin)
        ]

    def _computed(
        self, step: _Step, twin: Node, operands: Sequence[_Track], pairs: Sequence[_Relation]
    ) -> _Track:
        node, rule = step.node, RULES[twin.op.kind]
        f = tuple(pair.f for pair in pairs)
        noise = tuple(pair.noise for pair in pairs if pair.noise is not None)
        site = Site(
            node, twin, tuple(t.q for t in operands), f, tuple(pair.d for pair in pairs), noise,
            tuple(pair.moments for pair in pairs),
        )  # fmt: skip
        real = rule.values(twin, f)
        slack = Interval.around(rule.slack(twin, f, real))
        expected = rule.noise(site) if len(noise) == len(pairs) else None
        span = _activated(twin.op, real + slack)
        usual = step.usual(bias_shift(node, twin)) or span
        moments = self._moments(twin.value, usual)
        reason = next((pair.reason for pair in pairs if pair.reason), "")
        if isinstance(rule, Unbounded):
            reason = rule.reason
        relation = _Relation(
            twin.value, span, rule.difference(site) + slack, expected, moments, reason
        )
        return step.finish(relation, real + slack, usual, self.within_grids)

    def _pairs(self, twin: Node, operands: Sequence[_Track]) -> list[_Relation]:
        """Returns the operands' relations, fewer when one does not stand for the twin's."""
        found = []
        for value, track in zip(twin.inputs, operands, strict=True):
            source, relation = self.reference.producer(value), track.relation
            if relation is None and isinstance(source.op, Constant):
                f = _point(source)
                if f.low.shape == track.q.low.shape and np.array_equal(track.q.low, track.q.high):
                    d = track.q - f
                    still = Noise(d.low, np.zeros_like(d.low))
                    found.append(_Relation(value, f, d, still, Moments.even(f)))
            elif relation is not None and relation.twin == value:
                found.append(relation)
        return found

    def _by_range(self, step: _Step) -> _Track:
        """Returns a track without a relation, or related by name and by nothing but the ranges."""
        q = step.clamped(step.q)
        name = step.node.name
        if name not in self.reference or step.node.results[0].shape != self._shape(name):
            return _Track(q, None)
        return _Track(q, self._apart(q, Value(name)))

    def _shape(self, name: str) -> tuple[int | None, ...]:
        return self.reference.node(name).results[0].shape

    def _apart(self, q: Interval, twin: Value) -> _Relation:
        f = self._float_values()[twin]
        d = q - f
        reason = f"{twin} is computed otherwise in the float graph: only the ranges are compared"
        return _Relation(twin, f, d, None, Moments.even(f), "" if d.finite else reason)

    def _float_values(self) -> Mapping[Value, Interval]:
        """Returns what the float graph's values can be, from its inputs alone."""
        found: dict[Value, Interval] = {}
        for node in self.reference.nodes:
            if isinstance(node.op, Input):
                given = self.ranges.get(node.name) or self._default_range(
                    self.quantized.node(node.name)
                )
                found[node.value] = Interval.of(np.full(result_shape(node), given.low), given.high)
            elif isinstance(node.op, Constant):
                found[node.value] = _point(node)
            else:
                rule, x = RULES[node.op.kind], [found[value] for value in node.inputs]
                real = rule.values(node, x)
                slack = Interval.around(rule.slack(node, x, real))
                found[node.value] = _activated(node.op, real + slack)
        return found

    def _output(self, name: str, value: Value, track: _Track) -> ValueBound:
        wanted = dict(self.reference.outputs).get(name)
        if wanted is None:
            raise GraphError(
                f"the float graph has no output '{name}', it has "
                f"{sorted(dict(self.reference.outputs))}",
                where=self.reference.name,
                hint="compare a quantized graph with the float graph it was made of",
            )
        relation = track.relation
        if relation is None or relation.twin != wanted:
            relation = self._apart(track.q, wanted)
        return _bound(relation)


@dataclass(frozen=True, eq=False)
class _Step:
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
        span = _storage_span(self.node)
        if span is None:
            return None
        half = _grid(self.node).scale[0] / 2
        ends = Interval.of(np.full(result_shape(self.node), span[0] - half), span[1] + half)
        return Interval.of(ends.low - shift, ends.high - shift)

    def finish(
        self, before: _Relation, f: Interval, usual: Interval | None, narrow: bool
    ) -> _Track:
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
        kind = getattr(op, "activation", "none")
        if kind != "none":
            rule = POINTWISE[kind]
            d = rule.difference(Site(self.node, self.node, (q,), (f,), (d,)))
        low, high = self._ends
        if np.isfinite(low) or np.isfinite(high):
            cut = extremes(
                lambda x: np.clip(x, low, high) - _activate(kind, x), q, (low, high, 0.0, 6.0)
            )
            d = d + cut
        stored = self.clamped(q)
        d = d.meet(stored - result)
        if self.node.results[0].quant is not None:
            # what is stored is read back in float32
            d = d + Interval.around(4 * UNIT * stored.magnitude)
        reason = before.reason or f"%{self.node.name}: a sum may not fit into 32 bits"
        relation = replace(
            before, f=result, d=d, noise=self._noisy(before), reason="" if d.finite else reason
        )
        return _Track(stored, relation)

    def _noisy(self, before: _Relation) -> Noise | None:
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
        span = _storage_span(self.node)
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


def _moved(step: _Step, operands: Sequence[_Track]) -> _Track | None:
    """Returns the track of a sum with a constant, which moves the error and not the twin."""
    op = step.node.op
    if not isinstance(op, Add | Sub) or op.activation != "none":
        return None
    by = operands[1].q
    before = operands[0].relation
    fits = before is not None and before.f.low.shape == result_shape(step.node)
    if before is None or not fits or not np.array_equal(by.low, by.high):
        return None
    shift = by.low if isinstance(op, Add) else -by.low
    noise = before.noise
    moved = None if noise is None else Noise(noise.mean + shift, noise.variance)
    relation = replace(before, d=before.d.shifted(shift), noise=moved)
    return step.finish(relation, before.f, None, False)


def _bound(relation: _Relation) -> ValueBound:
    noise = relation.noise
    expected = None if noise is None else np.sqrt(noise.mean**2 + np.maximum(noise.variance, 0))
    return ValueBound(relation.twin, relation.d, expected, relation.reason)


def _plain(op: Op) -> Op:
    """Returns the op, whether or not it has a bias."""
    return replace(op, use_bias=True) if isinstance(op, _Biased) else op


def _point(node: Node) -> Interval:
    value = exact(node.weight("value"))
    return Interval(value, value)


def _grid(node: Node) -> Quant:
    grid = node.results[0].quant
    assert grid is not None
    return grid


def _storage_span(node: Node) -> tuple[float, float] | None:
    type = node.results[0]
    if type.quant is None:
        return None
    scale, zero = type.quant.scale[0], type.quant.zero_point[0]
    low, high = type.dtype.bounds
    return (low - zero) * scale, (high - zero) * scale


def _activate(kind: str, x: Floats) -> Floats:
    return x if kind == "none" else np.clip(x, 0, 6 if kind == "relu6" else None)


def _activated(op: Op, x: Interval) -> Interval:
    kind = getattr(op, "activation", "none")
    return x.mapped(lambda side: _activate(kind, side))
