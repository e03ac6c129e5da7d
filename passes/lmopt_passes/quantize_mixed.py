"""quantize-mixed: integers where they cost no accuracy, float32 where they would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

from lmopt.errors import UsageError
from lmopt.ir.graph import Graph
from lmopt.pipeline.base import Need, Observer, Pass, PassContext, PassResult
from lmopt.quant.assign import KERNEL_AXIS, EdgeType
from lmopt_passes.post_training import INT8, UINT8, PostTraining

Segment = frozenset[str]


@dataclass(frozen=True)
class QuantizeMixed(Pass):
    """Leaves those parts of a folded float graph in float32 that eight bits would harm.

    The graph is cut into segments. The noise of each is the shift of the landmarks when it alone is
    quantized; segments go back to float32, most noise per millisecond first, until the validation
    NME is within the limit, and those that turn out not to be needed return to integers. With a
    target, milliseconds are its estimate, conversions included, and a segment that is faster in
    float32 stays there; without one, multiply-accumulates stand for them.

    Attributes:
        max_nme_drop: How many points of validation NME the file may lose.
        storage: int8 (kernels per channel) or uint8 (per tensor).
        segments: Parts the graph is cut into, at kernels, of similar work.
        observer: How an activation's range is chosen: min-max, percentile or mse.
        faces: Calibration faces drawn from the training split.
        input: Element type of the inputs: float32, uint8 (the picture's bytes) or int8.
        output: Element type of the outputs.
    """

    name: ClassVar[str] = "quantize-mixed"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR, Need.SCORER})
    max_nme_drop: float = 0.02
    storage: Literal["int8", "uint8"] = "int8"
    segments: int = 16
    observer: Observer = "percentile"
    faces: int = 200
    input: EdgeType = "uint8"
    output: EdgeType = "float32"

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise UsageError(f"segments is {self.segments}, wanted at least 1")

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        scheme = INT8 if self.storage == "int8" else UINT8
        prepared = PostTraining.of(graph, scheme, ctx.calibrator, self)
        parts = segments_of(graph, self.segments)

        def keeping(real: frozenset[int]) -> PostTraining:
            return prepared.keeping(frozenset[str]().union(*(parts[k] for k in real)))

        corrected = cache(lambda real: keeping(real).corrected())
        everywhere = frozenset(range(len(parts)))
        float_nme = ctx.scorer.nme_percent(graph)
        noise = {
            k: ctx.scorer.shift_percent(keeping(everywhere - {k}).quantized(), graph)
            for k in everywhere
        }
        drop = cache(lambda real: ctx.scorer.nme_percent(corrected(real)) - float_nme)
        cost = cache(_cost_of(graph, ctx, parts, lambda real: keeping(real).quantized()))
        real = _Search(noise, drop, cost, self.max_nme_drop).best()
        kept = ", ".join(f"{_span(graph, parts[k])} (noise {noise[k]:.2f} %)" for k in sorted(real))
        return PassResult(
            corrected(real),
            True,
            (
                f"{len(real)} of {len(parts)} segments stay in float32: {kept or 'none'}",
                f"validation NME {drop(real):+.3f} points",
                *keeping(real).notes,
            ),
        )


@dataclass(frozen=True)
class _Search:
    """Which segments stay real.

    Attributes:
        noise: Of each segment, when it alone is integer.
        drop: NME points lost with a set of real segments.
        cost: Time, or what stands for it, with a set of real segments.
        limit: Points that may be lost.
    """

    noise: Mapping[int, float]
    drop: Callable[[frozenset[int]], float]
    cost: Callable[[frozenset[int]], float]
    limit: float

    def best(self) -> frozenset[int]:
        real = self._faster(frozenset())
        while self.drop(real) > self.limit and len(real) < len(self.noise):
            real = self._faster(real | {self._worst(real)})
        for k in sorted(real, key=lambda k: self.cost(real) - self.cost(real - {k}), reverse=True):
            without = real - {k}
            if self.cost(without) < self.cost(real) and self.drop(without) <= self.limit:
                real = without
        return real

    def _worst(self, real: frozenset[int]) -> int:
        """Returns the integer segment with the most noise per time that float32 costs more."""
        here = self.cost(real)
        least = 1e-6 * max(here, 1e-9)

        def gain(k: int) -> float:
            return self.noise[k] ** 2 / max(self.cost(real | {k}) - here, least)

        return max((k for k in self.noise if k not in real), key=gain)

    def _faster(self, real: frozenset[int]) -> frozenset[int]:
        """Returns the set with segments added while that saves time."""
        while True:
            more = [real | {k} for k in self.noise if k not in real]
            best = min(more, key=self.cost, default=real)
            if self.cost(best) >= self.cost(real):
                return real
            real = best


def segments_of(graph: Graph, count: int) -> list[Segment]:
    """Returns at most `count` runs of nodes in graph order, of similar work.

    A run begins at a kernel; of two neighbours those with the least work together become one first.
    Inputs belong to none.
    """
    runs: list[tuple[Segment, int]] = []
    for node in graph.nodes:
        if node.op.kind == "input":
            continue
        work = node.op.macs(graph.input_types(node))
        if not runs or node.op.kind in KERNEL_AXIS:
            runs.append((frozenset({node.name}), work))
        else:
            names, before = runs[-1]
            runs[-1] = (names | {node.name}, before + work)
    while len(runs) > count:
        at = min(range(len(runs) - 1), key=lambda k: runs[k][1] + runs[k + 1][1])
        (first, a), (second, b) = runs[at : at + 2]
        runs[at : at + 2] = [(first | second, a + b)]
    return [names for names, _ in runs]


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


def _span(graph: Graph, part: Segment) -> str:
    names = [node.name for node in graph.nodes if node.name in part]
    return f"%{names[0]}" if len(names) == 1 else f"%{names[0]}..%{names[-1]}"
