"""prune: channels removed by importance, or small kernel entries set to zero in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import PassError, UsageError
from lmopt.ir.channels import ChannelGroup, ChannelMap, map_channels, slice_channels
from lmopt.ir.graph import Graph
from lmopt.ir.importance import channel_importance
from lmopt.ir.size import size_change, strip_weights
from lmopt.pipeline.base import (
    Loss,
    Need,
    Pass,
    PassContext,
    PassResult,
    SparsityPlan,
    TrainingPlan,
)
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt_passes.scale_width import aligned


@dataclass(frozen=True)
class Prune(Pass):
    """Removes what matters least.

    `structured` ranks all channels of the graph by importance (relative to their layer) over the
    square root of the MACs that go with them, so that costly layers give more without one of them
    giving everything, and removes them, through residuals and concats, until at least `amount` of
    the MACs are gone: file and time shrink, no training. `magnitude` trains while the smallest
    `amount` of the entries of every kernel are set to 0 on tfmot's schedule: the file only shrinks
    when compressed.

    Attributes:
        amount: Share of MACs (structured) or of kernel entries (magnitude), above 0 and below 1.
        method: structured or magnitude.
        min_channels: structured: channels that every layer keeps.
        align: structured: layers keep a multiple of it, or all their channels; kernels compute 8
            channels at a time, so the odd ones save nothing.
        epochs: magnitude: passes over the training faces.
        learning_rate: magnitude: peak rate of Adam.
        batch: magnitude: faces per step.
        loss: magnitude: coordinate loss.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", 2017, and for the share of cost
        Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference",
        2017, section 2.2 (structured); Zhu and Gupta, "To prune, or not to prune", 2017
        (magnitude).
    """

    name: ClassVar[str] = "prune"
    amount: float = 0.3
    method: Literal["structured", "magnitude"] = "structured"
    min_channels: int = 4
    align: int = 8
    epochs: float = 2.0
    learning_rate: float = 5e-4
    batch: int = 32
    loss: Loss = "wing"

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise UsageError(f"amount is {self.amount}, wanted above 0 and below 1")
        for option, value in (("min-channels", self.min_channels), ("align", self.align)):
            if value < 1:
                raise UsageError(f"{option} is {value}, wanted at least 1")

    def required(self) -> frozenset[Need]:
        return frozenset({Need.TRAINER}) if self.method == "magnitude" else frozenset()

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        require_weights(graph, self.name)
        return self._magnitude(graph, ctx) if self.method == "magnitude" else self._remove(graph)

    def _magnitude(self, graph: Graph, ctx: PassContext) -> PassResult:
        plan = TrainingPlan(
            epochs=self.epochs, learning_rate=self.learning_rate, batch=self.batch, loss=self.loss
        )
        seed = ctx.derive_seed(f"{self.name}/{graph.digest()}")
        result = ctx.trainer.sparsify(graph, plan, SparsityPlan(self.amount), seed=seed)
        return PassResult(result, True, (f"{_zero_share(result):.1%} of kernel entries are 0",))

    def _remove(self, graph: Graph) -> PassResult:
        channels = map_channels(graph)
        groups = [group for group in channels.groups if group.removable]
        shapes = strip_weights(graph)
        order = _ranking(graph, shapes, channels, groups)

        def after(removed: int) -> dict[str, list[int]]:
            return self._keep(groups, order, removed)

        def macs(removed: int) -> int:
            return slice_channels(shapes, after(removed), channels).macs

        wanted = graph.macs * (1 - self.amount)
        least = macs(len(order))
        if least > wanted:
            raise PassError(
                f"prune cannot remove {self.amount:.0%} of {graph.macs / 1e6:.1f} M MACs: with "
                f"min-channels={self.min_channels} and align={self.align} "
                f"{least / 1e6:.1f} M remain",
                where=graph.name,
                hint=f"ask for at most {1 - least / graph.macs:.2f}, or lower the limits",
            )
        low, high = 0, len(order)  # macs(high) is always low enough
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if macs(middle) <= wanted else (middle, high)
        keep = after(high)
        result = slice_channels(graph, keep, channels)
        gone = sum(group.size - len(keep[group.id]) for group in groups)
        note = f"{gone} of {len(order)} channels removed; {size_change(graph, result)}"
        return PassResult(result, True, (note,))

    def _keep(
        self, groups: Sequence[ChannelGroup], order: NDArray[np.int64], removed: int
    ) -> dict[str, list[int]]:
        keep: dict[str, list[int]] = {}
        for index, group in enumerate(groups):
            # Most important last; the end of the ranking always stays, whatever `removed` says.
            mine = order[order[:, 0] == index, 1]
            gone = int((order[:removed, 0] == index).sum())
            count = max(group.size - gone, min(self.min_channels, group.size))
            kept = mine[group.size - aligned(count, self.align, group.size) :]
            keep[group.id] = sorted(kept.tolist())
        return keep


def _ranking(
    graph: Graph, shapes: Graph, channels: ChannelMap, groups: Sequence[ChannelGroup]
) -> NDArray[np.int64]:
    """Returns (group index, position) of every channel, least important for its cost first."""
    if not groups:
        raise PassError(f"prune found no channels that may go in '{graph.name}'")
    scores, places = [], []
    for index, group in enumerate(groups):
        importance = channel_importance(graph, channels, group)
        share = importance / max(float(importance.mean()), np.finfo(float).tiny)
        keep = {other.id: list(range(other.size)) for other in groups}
        keep[group.id] = keep[group.id][1:] or keep[group.id]  # the only channel of a layer stays
        saved = max(shapes.macs - slice_channels(shapes, keep, channels).macs, 1)
        scores.append(share / math.sqrt(saved))
        places.append(np.stack([np.full(group.size, index), np.arange(group.size)], axis=1))
    order = np.argsort(np.concatenate(scores), kind="stable")
    return np.asarray(np.concatenate(places)[order], np.int64)


def _zero_share(graph: Graph) -> float:
    kernels = [n.weights["kernel"].real() for n in graph.nodes if "kernel" in n.weights]
    total = sum(kernel.size for kernel in kernels)
    return sum(int((kernel == 0).sum()) for kernel in kernels) / total
