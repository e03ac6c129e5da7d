"""quantize-mixed: integers where they cost no accuracy, float32 where they would."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

from lmopt.errors import UsageError
from lmopt.ir.graph import Graph
from lmopt.ir.types import DType
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.services import Observer, QuantScheme
from lmopt.quant.segment import Segment, segments_of, span
from lmopt.target.profile import EndType
from lmopt_passes.mixture import Mixture, MixtureSearch
from lmopt_passes.post_training import PostTraining
from lmopt_passes.scheme import INT8, UINT8, check_faces

WORK: Mapping[DType, float] = {DType.F32: 1.0, DType.I16: 0.5}
"""What a multiply-accumulate counts where no times are known; in eight bits nothing."""


@dataclass(frozen=True)
class QuantizeMixed(Pass):
    """Leaves those parts of a folded float graph in float32 or 16 bits that eight would harm.

    The graph is cut into segments. What each costs is found from the shift of the landmarks on the
    validation faces when it alone is quantized; segments go back to 16 bits (int16 activations,
    int8 kernels) or float32, most loss per millisecond first, until the file's expected loss is
    within the limit, and those that turn out not to be needed return to fewer bits. With a target,
    milliseconds are its estimate, conversions included, and a segment that is faster in float32
    stays there; without one, multiply-accumulates stand for them, in 16 bits half of them.

    The expected loss is `scoring.metrics.expected_drop`: what such a shift costs in NME averaged
    over its directions. The change of the validation NME itself is reported, not chosen by.

    Attributes:
        max_nme_drop: How many points of NME the file may be expected to lose.
        storage: int8 (kernels per channel) or uint8 (per tensor).
        int16: Whether segments may have 16 bits: `auto` where the target says what they take
            there, `yes` without a target too; then a note says where they are not legal. They
            only have them where that is faster than float32.
        minutes: After which the best found so far is taken; what was not looked at by then is
            float32. None looks at all. What is on the shelf of a cache costs no time.
        segments: Parts the graph is cut into, at kernels, of similar work.
        observer: How an activation's range is chosen: min-max, percentile, mse or kl.
        faces: Calibration faces drawn from the training split; 0 takes as many as pay: until twice
            as many save less than 5 % of the rounding error on faces not among them.
        input: Element type of the inputs: float32, uint8 (the picture's bytes), int8 or int16.
        output: Element type of the outputs.
        equalize: Whether channels are rescaled first, so that rounding makes the least noise.
        float_head: Whether the last, cheap layers stay in float32 where the answers are float32,
            and vectors that eight bits cannot hold because rare faces stretch their range.
    """

    name: ClassVar[str] = "quantize-mixed"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR, Need.SCORER})
    by_target: ClassVar[bool] = True
    max_nme_drop: float = 0.02
    storage: Literal["int8", "uint8"] = "int8"
    int16: Literal["auto", "yes", "no"] = "auto"
    minutes: float | None = None
    segments: int = 16
    observer: Observer = "mse"
    faces: int = 200
    input: EndType = "uint8"
    output: EndType = "float32"
    equalize: bool = True
    float_head: bool = True

    def __post_init__(self) -> None:
        check_faces(self.faces)
        if not self.max_nme_drop >= 0:
            raise UsageError(f"max-nme-drop is {self.max_nme_drop:g}, wanted at least 0")
        if self.segments < 1:
            raise UsageError(f"segments is {self.segments}, wanted at least 1")
        if self.minutes is not None and not self.minutes >= 0:
            raise UsageError(f"minutes is {self.minutes:g}, wanted at least 0")

    @property
    def _scheme(self) -> QuantScheme:
        return INT8 if self.storage == "int8" else UINT8

    def calibrated(self, graph: Graph, ctx: PassContext) -> PostTraining:
        """Returns the graph with its ranges; any part of it can then be quantized."""
        storages, _ = self._storages(ctx)
        wide = DType.I16 in storages
        return PostTraining.of(graph, self._scheme, ctx.calibrator, self, wide=wide)

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        begun = time.monotonic()
        storages, told = self._storages(ctx)
        prepared = self.calibrated(graph, ctx)
        parts = segments_of(graph, self.segments)
        tried: dict[tuple[int, DType], float] = {}

        def in_time() -> bool:
            return self.minutes is None or time.monotonic() - begun < 60 * self.minutes

        def mixed(mixture: Mixture) -> PostTraining:
            at = {
                storage: frozenset[str]().union(
                    *(part for part, own in zip(parts, mixture, strict=True) if own is storage)
                )
                for storage in (DType.F32, DType.I16)
            }
            return prepared.keeping(at[DType.F32]).widening(at[DType.I16])

        def alone(part: int, storage: DType) -> float:
            if (part, storage) not in tried:
                if not in_time():
                    return math.inf
                choices = len(parts) * (len(storages) - 1)
                ctx.tell("looking at what each segment costs", len(tried), choices)
                wide = parts[part] if storage is DType.I16 else frozenset[str]()
                made = prepared.widening(wide).only(parts[part])
                tried[part, storage] = ctx.scorer.expected_drop(made, graph)
            return tried[part, storage]

        corrected = cache(lambda mixture: mixed(mixture).corrected())

        @cache
        def loss(mixture: Mixture) -> float:
            ctx.tell("looking at mixtures of them", loss.cache_info().currsize, 0)
            return ctx.scorer.expected_drop(corrected(mixture), graph)

        cost = cache(_cost_of(graph, ctx, parts, lambda mixture: mixed(mixture).quantized()))
        search = MixtureSearch(storages, len(parts), alone, loss, cost, self.max_nme_drop, in_time)
        target = ctx.engine_if_any
        if target is not None and target.preferred in {"int8", "uint8"} - {self.storage}:
            told.append(f"{target.name} prefers the other: storage={target.preferred}")
        best = search.best()
        made = corrected(best)
        told += [_listed(graph, parts, best, tried, DType.F32, "float32")]
        if DType.I16 in best:
            told += [_listed(graph, parts, best, tried, DType.I16, "16 bits")]
        if not any(node.weights and node.results[0].quant for node in made.nodes):
            told.append("no part is both faster in integers and harmless there: the file is float")
        if ctx.cost_if_any is None:
            told.append("no times are known: multiply-accumulates stand for them")
        if not in_time():
            told.append(
                f"{self.minutes:g} minutes were over with {len(tried)} of "
                f"{len(parts) * (len(storages) - 1)} choices for single segments looked at; what "
                "was not is float32"
            )
        change = ctx.scorer.nme_percent(made) - ctx.scorer.nme_percent(graph)
        return PassResult(
            made,
            True,
            (
                *told,
                f"landmarks shift by {ctx.scorer.shift_percent(made, graph):.3f} %, which costs "
                f"{loss(best):.4f} points on average; validation NME {change:+.3f} points",
                *mixed(best).notes,
            ),
        )

    def _storages(self, ctx: PassContext) -> tuple[tuple[DType, ...], list[str]]:
        """Returns what a part may be stored in, and why not in 16 bits where those are wanted."""
        narrow = self._scheme.storage
        without, everything = (narrow, DType.F32), (narrow, DType.I16, DType.F32)
        if self.int16 == "no":
            return without, []
        target = ctx.engine_if_any
        if target is None or ctx.cost_if_any is None:
            return (everything if self.int16 == "yes" else without), []
        rule = target.rule("int16x8")
        if rule.legal and target.computes(DType.I16):
            return everything, []
        why = "there is no rate for it (peak_i16)" if rule.legal else f"not legal, {rule}"
        told = f"no segment has 16 bits on {target.name}: {why}"
        return without, [told] if self.int16 == "yes" else []


def _listed(
    graph: Graph,
    parts: list[Segment],
    mixture: Mixture,
    tried: Mapping[tuple[int, DType], float],
    storage: DType,
    what: str,
) -> str:
    """Returns which segments have a storage, for the report, with what they lose in eight bits."""
    found = [k for k, own in enumerate(mixture) if own is storage]
    lost = {k: drop for (k, own), drop in tried.items() if own not in (DType.I16, DType.F32)}
    named = ", ".join(
        span(graph, parts[k]) + (f" (alone {lost[k]:.4f})" if k in lost else "") for k in found
    )
    return f"{len(found)} of {len(parts)} segments stay in {what}: {named or 'none'}"


def _cost_of(
    graph: Graph,
    ctx: PassContext,
    parts: list[Segment],
    quantized: Callable[[Mixture], Graph],
) -> Callable[[Mixture], float]:
    cost = ctx.cost_if_any
    if cost is not None:
        return lambda mixture: cost.latency_ms(quantized(mixture))
    work = [
        1 + sum(graph.node(name).op.macs(graph.input_types(graph.node(name))) for name in part)
        for part in parts
    ]
    return lambda mixture: sum(
        work[k] * WORK.get(storage, 0.0) for k, storage in enumerate(mixture)
    )
