"""fuse-block: a pointwise and a depthwise convolution become one dense convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from lmopt.errors import PassError, UsageError
from lmopt.ir.graph import Graph
from lmopt.ir.ops import BatchNorm
from lmopt.ir.size import size_change
from lmopt.ir.types import ValueRange
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt.pipeline.services import CostModel
from lmopt.quant.assign import check_quantizable, quantize_graph
from lmopt_passes.float_head import float_head
from lmopt_passes.scheme import INT8, UINT8
from lmopt_passes.separable import (
    DenseKernel,
    SeparablePair,
    composed,
    fitted,
    fused,
    separable_pairs,
)

Stored = Literal["float32", "int8", "uint8"]


@dataclass(frozen=True)
class FuseBlock(Pass):
    """Replaces the expansion and the depthwise convolution of blocks by one dense convolution.

    It has the window, stride and padding of the depthwise one and its activation; a depthwise
    convolution without an expansion before it goes with the pointwise one behind it. Without
    activations between the two their kernels are multiplied out; else the dense kernel is the one
    that comes nearest, in least squares over the calibration faces, to what the two gave. Every
    block is fused alone and scored on the validation faces; of those that get faster on the target,
    the `count` with the least expected loss per millisecond go. Meant to be followed by
    `finetune{distill=0.5}`.

    Attributes:
        count: Blocks to fuse at most.
        storage: What the detector will compute in, for which times are estimated: a dense
            convolution is cheap in int8 on CPUs with dot-product instructions, seldom in float32.
        faces: Calibration faces, of the training split, for the fit.

    Source: Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", 2021
        (arXiv:2104.00298), section 3.2.
    """

    name: ClassVar[str] = "fuse-block"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR, Need.SCORER})
    by_target: ClassVar[bool] = True
    count: int = 1
    storage: Stored = "int8"
    faces: int = 100

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"count is {self.count}, wanted at least 1")

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        require_weights(graph, self.name)
        pairs = separable_pairs(graph)
        if not pairs:
            raise PassError(
                f"{self.name} found nothing to fuse: no pointwise and depthwise convolution with "
                "nothing but an activation between them",
                where=graph.name,
                hint="put fold-batchnorm before it" if _has_batch_norm(graph) else "",
            )
        price, told = self._prices(graph, ctx.cost_if_any, pairs)
        kernels = dict(
            zip(price, fitted(graph, list(price), ctx.calibrator, faces=self.faces), strict=True)
        )
        harm = {
            pair: ctx.scorer.expected_drop(self._fused(graph, {pair: made}), graph)
            for pair, made in kernels.items()
        }
        chosen: list[SeparablePair] = []
        for pair in sorted(price, key=lambda pair: (harm[pair] * price[pair], price[pair])):
            if len(chosen) < self.count and not any(map(pair.overlaps, chosen)):
                chosen.append(pair)
        result = self._fused(graph, {pair: kernels[pair] for pair in chosen})
        return PassResult(
            result,
            True,
            (
                *(_note(pair, kernels[pair], harm[pair]) for pair in chosen),
                size_change(graph, result),
                told(result),
            ),
        )

    def _fused(self, graph: Graph, kernels: Mapping[SeparablePair, DenseKernel]) -> Graph:
        return fused(graph, kernels, self.name)

    def _prices(
        self, graph: Graph, cost: CostModel | None, pairs: Sequence[SeparablePair]
    ) -> tuple[dict[SeparablePair, float], Callable[[Graph], str]]:
        """Returns what a block's harm is multiplied with, and what tells the time of the result.

        With times it is one over the milliseconds that a block saves, and those that save none are
        left out; without, the multiply-accumulates that a block costs more.
        """
        after = {pair: self._fused(graph, {pair: composed(pair)}) for pair in pairs}
        if cost is None:
            added = {pair: max(made.macs - graph.macs, 1) for pair, made in after.items()}
            return (
                dict(added),
                lambda result: (
                    "no times are known: the multiply-accumulates that a block adds stand for them"
                ),
            )

        def ms(made: Graph) -> float:
            return cost.latency_ms(_stored(made, self.storage))

        before = ms(graph)
        saved = {pair: before - ms(made) for pair, made in after.items()}
        price = {pair: 1 / gain for pair, gain in saved.items() if gain > 0}
        if not price:
            least = max(saved, key=lambda pair: saved[pair])
            raise PassError(
                f"{self.name} found nothing that pays in {self.storage}: "
                f"%{least.last.name} would take {-saved[least]:.3g} ms more",
                where=graph.name,
                hint="on this target the blocks are better as they are",
            )
        return (
            price,
            lambda result: f"estimated in {self.storage}: {before:.3g} ms -> {ms(result):.3g} ms",
        )


def _has_batch_norm(graph: Graph) -> bool:
    return any(isinstance(node.op, BatchNorm) for node in graph.nodes)


def _note(pair: SeparablePair, made: DenseKernel, harm: float) -> str:
    dense = pair.dense
    height, width = dense.kernel
    start = (
        "multiplied out"
        if made.explained is None
        else f"fitted to {made.explained:.1%} of the variance"
    )
    return (
        f"%{pair.first.name} and %{pair.last.name} are one dense {height}x{width} convolution to "
        f"{dense.filters} channels, {start}; alone it costs {harm:.3g} points"
    )


def _stored(graph: Graph, storage: Stored) -> Graph:
    """Returns a graph as it will be stored, on grids that tell nothing but its time."""
    if storage == "float32":
        return graph
    check_quantizable(graph)
    scheme = replace(INT8 if storage == "int8" else UINT8, real=float_head(graph))
    ranges = {node.value: ValueRange(-1.0, 1.0) for node in graph.nodes}
    return quantize_graph(graph, ranges, scheme, input_type="uint8")
