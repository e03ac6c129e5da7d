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
from lmopt.quant.interval import Interval
from lmopt.quant.kernel_error import KernelSet, kernel_error
from lmopt.quant.pointwise import Unbounded
from lmopt.quant.relation import Relation, Step, Track, activated, read_back, storage_span
from lmopt.quant.rules import RULES
from lmopt.quant.transfer import Moments, Noise, Site, bias_shift, exact, result_shape

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
        tracks: dict[Value, Track] = {}
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

    def _track(self, node: Node, operands: Sequence[Track]) -> Track:
        if isinstance(node.op, Input):
            return self._input(node)
        if isinstance(node.op, Constant):
            return self._constant(node)
        rule, x = RULES[node.op.kind], [track.q for track in operands]
        real = rule.values(node, x)
        if node.results[0].quant is None:
            error = rule.slack(node, x, real)
        else:
            types = self.quantized.input_types(node)
            error = kernel_error(node, types, x, real, self.kernels)
        step = Step(node, real + Interval.around(error), error)
        return self._related(step, operands) or self._by_range(step)

    def _constant(self, node: Node) -> Track:
        q = _point(node)
        twin = self.reference.node(node.name) if node.name in self.reference else None
        if twin is None or not isinstance(twin.op, Constant) or twin.op != node.op:
            return Track(q, None)
        return Track(q, _constants(q, twin))

    def _input(self, node: Node) -> Track:
        given = self.ranges.get(node.name) or self._default_range(node)
        shape, grid = result_shape(node), node.results[0].quant
        f = Interval.of(np.full(shape, given.low), given.high)
        rounding = given.rounding if grid is not None else 0.0
        if rounding is None:
            rounding = 0.0 if grid is None else grid.scale[0] * (0.5 + 2.0**-20)
        step = Step(node, f + Interval.around(rounding), rounding)
        none = Interval.of(np.zeros(shape), 0.0)
        moments = self._moments(Value(node.name), f)
        relation = Relation(node.value, f, none, Noise(none.low, none.low), moments)
        return step.finish(relation, f, f, self.within_grids)

    def _default_range(self, node: Node) -> InputRange:
        readers = [n for n, _ in self.quantized.users(node.value) if isinstance(n.op, Quantize)]
        spans = [span for n in (node, *readers) if (span := storage_span(n)) is not None]
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

    def _related(self, step: Step, operands: Sequence[Track]) -> Track | None:
        node = step.node
        if isinstance(node.op, Quantize | Dequantize):
            before = operands[0].relation
            if before is None:
                return None
            # a grid of what a mean was taken from says nothing of the whole
            whole = bool(((before.d.low <= 0) & (before.d.high >= 0)).all())
            usual = step.usual(0.0) if whole else None
            return step.finish(before, before.f, usual, self.within_grids)
        for twin in self._twins(node, operands):
            pairs = self._pairs(twin, operands)
            if len(pairs) == len(node.inputs):
                return self._computed(step, twin, operands, pairs)
        return _moved(step, operands)

    def _twins(self, node: Node, operands: Sequence[Track]) -> list[Node]:
        """Returns nodes of the float graph that may be meant, the one of the same name first."""
        found = [self.reference.node(node.name)] if node.name in self.reference else []
        first = operands[0].relation
        if not found and first is not None:
            readers = {reader.name: reader for reader, _ in self.reference.users(first.twin)}
            found = [twin for twin in readers.values() if not self._is_named(twin)]
        return [
            twin
            for twin in found
            if _plain(node.op) == _plain(twin.op)
            and len(node.inputs) == len(twin.inputs)
            and result_shape(node) == result_shape(twin)
        ]

    def _computed(
        self, step: Step, twin: Node, operands: Sequence[Track], pairs: Sequence[Relation]
    ) -> Track:
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
        span = activated(twin.op, real + slack)
        usual = step.usual(bias_shift(node, twin)) or span
        moments = self._moments(twin.value, usual)
        reason = next((pair.reason for pair in pairs if pair.reason), "")
        if isinstance(rule, Unbounded):
            reason = rule.reason
        relation = Relation(
            twin.value, span, rule.difference(site) + slack, expected, moments, reason
        )
        return step.finish(relation, real + slack, usual, self.within_grids)

    def _is_named(self, twin: Node) -> bool:
        """Returns whether the quantized graph has a node of the same name and op."""
        if twin.name not in self.quantized:
            return False
        return _plain(self.quantized.node(twin.name).op) == _plain(twin.op)

    def _pairs(self, twin: Node, operands: Sequence[Track]) -> list[Relation]:
        """Returns the operands' relations, fewer when one does not stand for the twin's."""
        found = []
        for value, track in zip(twin.inputs, operands, strict=True):
            source, relation = self.reference.producer(value), track.relation
            if relation is None and isinstance(source.op, Constant):
                if source.op == Constant(track.q.low.shape) and _is_point(track.q):
                    found.append(_constants(track.q, source))
            elif relation is not None and relation.twin == value:
                found.append(relation)
        return found

    def _by_range(self, step: Step) -> Track:
        """Returns a track without a relation, or related by name and by nothing but the ranges."""
        q = step.clamped(step.q)
        name = step.node.name
        if name not in self.reference or step.node.results[0].shape != self._shape(name):
            return Track(q, None)
        return Track(q, self._apart(q, Value(name)))

    def _shape(self, name: str) -> tuple[int | None, ...]:
        return self.reference.node(name).results[0].shape

    def _apart(self, q: Interval, twin: Value) -> Relation:
        f = self._float_values()[twin]
        d = q - f + read_back(q)
        reason = f"{twin} is computed otherwise in the float graph: only the ranges are compared"
        return Relation(twin, f, d, None, Moments.even(f), "" if d.finite else reason)

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
                found[node.value] = activated(node.op, real + slack)
        return found

    def _output(self, name: str, value: Value, track: Track) -> ValueBound:
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


def _moved(step: Step, operands: Sequence[Track]) -> Track | None:
    """Returns the track of a sum with a constant, which moves the error and not the twin."""
    op = step.node.op
    if not isinstance(op, Add | Sub) or op.activation != "none":
        return None
    by = operands[1].q
    before = operands[0].relation
    fits = before is not None and before.f.low.shape == result_shape(step.node)
    if before is None or not fits or not _is_point(by):
        return None
    shift = by.low if isinstance(op, Add) else -by.low
    noise = before.noise
    moved = None if noise is None else Noise(noise.mean + shift, noise.variance)
    relation = replace(before, d=before.d.shifted(shift), noise=moved)
    return step.finish(relation, before.f, None, False)


def _bound(relation: Relation) -> ValueBound:
    noise = relation.noise
    expected = None if noise is None else np.sqrt(noise.mean**2 + np.maximum(noise.variance, 0))
    return ValueBound(relation.twin, relation.d, expected, relation.reason)


def _plain(op: Op) -> Op:
    """Returns the op, whether or not it has a bias."""
    return replace(op, use_bias=True) if isinstance(op, _Biased) else op


def _constants(q: Interval, twin: Node) -> Relation:
    """Returns the relation of a stored constant to the float one."""
    f = _point(twin)
    d = q - f
    still = Noise(d.low, np.zeros_like(d.low))
    return Relation(twin.value, f, d + read_back(q), still, Moments.even(f))


def _is_point(x: Interval) -> bool:
    return np.array_equal(x.low, x.high)


def _point(node: Node) -> Interval:
    value = exact(node.weight("value"))
    return Interval(value, value)
