"""scale-width: fewer channels everywhere, the most important ones inherited."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmopt.errors import PassError, UsageError
from lmopt.ir.channels import map_channels, slice_channels
from lmopt.ir.graph import Graph
from lmopt.ir.importance import channel_importance
from lmopt.ir.size import size_change
from lmopt.pipeline.base import Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float


@dataclass(frozen=True)
class ScaleWidth(Pass):
    """Keeps the most important `factor` of the channels of every layer, with their weights.

    Channels tied by residuals, concats or depthwise convolutions stay or go together; inputs and
    outputs keep theirs. A graph without weights keeps its first channels.

    Attributes:
        factor: Share of channels kept, above 0 and at most 1, rounded up.
        align: Kept channel counts are rounded up to a multiple of it where the layer has as many.
    """

    name: ClassVar[str] = "scale-width"
    factor: float = 0.5
    align: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise UsageError(f"factor is {self.factor}, wanted above 0 and at most 1")
        if self.align < 1:
            raise UsageError(f"align is {self.align}, wanted at least 1")

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        channels = map_channels(graph)
        groups = [group for group in channels.groups if group.removable]
        if not groups:
            raise PassError(f"{self.name} found no channels that may go in '{graph.name}'")
        keep: dict[str, list[int]] = {}
        for group in groups:
            count = aligned(math.ceil(self.factor * group.size - 1e-9), self.align, group.size)
            order = np.arange(group.size)
            if graph.is_initialized:
                order = np.argsort(-channel_importance(graph, channels, group), kind="stable")
            keep[group.id] = sorted(order[:count].tolist())
        if all(len(kept) == channels.group(id).size for id, kept in keep.items()):
            return PassResult(graph, False, ("every layer keeps its channels",))
        result = slice_channels(graph, keep, channels)
        kept = sum(map(len, keep.values()))
        total = sum(group.size for group in groups)
        note = f"{kept} of {total} channels kept; {size_change(graph, result)}"
        return PassResult(result, True, (note,))


def aligned(count: int, align: int, size: int) -> int:
    """Returns `count` rounded up to a multiple of `align`, from 1 to `size`."""
    return min(size, -(-max(1, count) // align) * align)
