"""quantize-mixed: integers where they cost no accuracy, float32 where they would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

from lmopt.errors import UsageError
from lmopt.ir.graph import Graph
from lmopt.pipeline.base import Need, Observer, Pass, PassContext, PassResult
from lmopt.quant.segment import Segment, segments_of, span
from lmopt.target.profile import EndType
from lmopt_passes.post_training import PostTraining
from lmopt_passes.scheme import INT8, UINT8


@dataclass(frozen=True)
class QuantizeMixed(Pass):
    """Leaves those parts of a folded float graph in float32 that eight bits would harm.

    The graph is cut into segments. What each costs is found from the shift of the landmarks on the
    validation faces when it alone is quantized; segments go back to float32, most loss per
    millisecond first, until the file's expected loss is within the limit, and those that turn out
    not to be needed return to integers. With a target, milliseconds are its estimate, conversions
    included, and a segment that is faster in float32 stays there; without one,
    multiply-accumulates stand for them.

    The expected loss is `scoring.metrics.expected_drop`: what such a shift costs in NME averaged
    over its directions. The change of the validation NME itself is reported, not chosen by.

    Attributes:
        max_nme_drop: How many points of NME the file may be expected to lose.
        storage: int8 (kernels per channel) or uint8 (per tensor).
        segments: Parts the graph is cut into, at kernels, of similar work.
        observer: How an activation's range is chosen: min-max, percentile, mse or kl.
        faces: Calibration faces drawn from the training split; 0 takes as many as pay: until twice
            as many save less than 5 % of the rounding error on faces not among them.
        input: Element type of the inputs: float32, uint8 (the picture's bytes), int8 or int16.
        output: Element type of the outputs.
        equalize: Whether channels are rescaled first, so that rounding makes the least noise.
        float_head: Whether the last, cheap layers stay in float32 where the answers are float32.
    """

    name: ClassVar[str] = "quantize-mixed"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR, Need.SCORER})
    by_target: ClassVar[bool] = True
    max_nme_drop: float = 0.02
    storage: Literal["int8", "uint8"] = "int8"
    segments: int = 16
    observer: Observer = "mse"
    faces: int = 200
    input: EndType = "uint8"
    output: EndType = "float32"
    equalize: bool = True
    float_head: bool = True

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise UsageError(f"segments is {self.segments}, wanted at least 1")

    def calibrated(self, graph: Graph, ctx: PassContext) -> PostTraining:
        """Returns the graph with its ranges; any part of it can then be quantized."""
        scheme = INT8 if self.storage == "int8" else UINT8
        return PostTraining.of(graph, scheme, ctx.calibrator, self)

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        prepared = self.calibrated(graph, ctx)
        parts = segments_of(graph, self.segments)

        def keeping(real: frozenset[int]) -> PostTraining:
            return prepared.keeping(frozenset[str]().union(*(parts[k] for k in real)))

        corrected = cache(lambda real: keeping(real).corrected())
        loss = cache(lambda real: ctx.scorer.expected_drop(corrected(real), graph))
        alone = {
            k: ctx.scorer.expected_drop(prepared.only(part), graph) for k, part in enumerate(parts)
        }
        cost = cache(_cost_of(graph, ctx, parts, lambda real: keeping(real).quantized()))
        real = _Search(alone, loss, cost, self.max_nme_drop).best()
        kept = ", ".join(f"{span(graph, parts[k])} (alone {alone[k]:.4f})" for k in sorted(real))
        made = corrected(real)
        told = [f"{len(real)} of {len(parts)} segments stay in float32: {kept or 'none'}"]
        if not any(node.weights and node.results[0].quant for node in made.nodes):
            told.append("no part is both faster in integers and harmless there: the file is float")
        if ctx.cost_if_any is None:
            told.append("no times are known: multiply-accumulates stand for them")
        change = ctx.scorer.nme_percent(made) - ctx.scorer.nme_percent(graph)
        return PassResult(
            made,
            True,
            (
                *told,
                f"landmarks shift by {ctx.scorer.shift_percent(made, graph):.3f} %, which costs "
                f"{loss(real):.4f} points on average; validation NME {change:+.3f} points",
                *keeping(real).notes,
            ),
        )


@dataclass(frozen=True)
class _Search:
    """Which segments stay real.

    What segments cost alone adds up to what they cost together, times one factor: small
    independent moves of a landmark add in their squares, and so does what they cost. So sets are
    sought by sums, and only the one found is made and looked at. Measured on pfld-0.25@300w (int8
    and uint8, 12 random sets of 16 segments): what a set costs is 0.75 to 0.98 times the sum.

    Attributes:
        alone: Expected loss of each segment, when it alone is integer.
        loss: Expected loss with a set of real segments.
        cost: Time, or what stands for it, with a set of real segments.
        limit: Points that may be lost.
    """

    alone: Mapping[int, float]
    loss: Callable[[frozenset[int]], float]
    cost: Callable[[frozenset[int]], float]
    limit: float

    def best(self) -> frozenset[int]:
        real = self._faster(frozenset())
        budget = self._sum(real)
        while self.loss(real) > self.limit and len(real) < len(self.alone):
            budget = min(budget, self._sum(real)) * self.limit / self.loss(real)
            next_real = self._within(budget)
            if self._sum(next_real) >= self._sum(real):
                next_real = self._faster(real | {self._worst(real)})
            real = next_real
        return real

    def _sum(self, real: frozenset[int]) -> float:
        return sum(lost for k, lost in self.alone.items() if k not in real)

    def _within(self, budget: float) -> frozenset[int]:
        """Returns a cheap set whose integer segments cost at most `budget`, one by one."""
        real = self._faster(frozenset())
        while self._sum(real) > budget and len(real) < len(self.alone):
            real = self._faster(real | {self._worst(real)})
        for k in sorted(real, key=lambda k: self.cost(real) - self.cost(real - {k}), reverse=True):
            without = real - {k}
            if self.cost(without) < self.cost(real) and self._sum(without) <= budget:
                real = without
        return real

    def _worst(self, real: frozenset[int]) -> int:
        """Returns the integer segment that costs most per time that float32 costs more."""
        here = self.cost(real)
        least = 1e-6 * max(here, 1e-9)

        def gain(k: int) -> float:
            return self.alone[k] / max(self.cost(real | {k}) - here, least)

        return max((k for k in self.alone if k not in real), key=gain)

    def _faster(self, real: frozenset[int]) -> frozenset[int]:
        """Returns the set with segments added while that saves time."""
        while True:
            more = [real | {k} for k in self.alone if k not in real]
            best = min(more, key=self.cost, default=real)
            if self.cost(best) >= self.cost(real):
                return real
            real = best


def _cost_of(
    graph: Graph,
    ctx: PassContext,
    parts: list[Segment],
    quantized: Callable[[frozenset[int]], Graph],
) -> Callable[[frozenset[int]], float]:
    cost = ctx.cost_if_any
    if cost is not None:
        return lambda real: cost.latency_ms(quantized(real))
    work = [
        1 + sum(graph.node(name).op.macs(graph.input_types(graph.node(name))) for name in part)
        for part in parts
    ]
    return lambda real: float(sum(work[k] for k in real))
