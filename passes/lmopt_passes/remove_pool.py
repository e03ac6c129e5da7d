"""remove-pool: a pool or a stride taken out of a network, later kernels reading the same places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmopt.errors import GraphError, PassError, did_you_mean
from lmopt.ir.graph import Graph, Node
from lmopt.ir.size import size_change, strip_weights
from lmopt.ir.unstride import has_stride, remove_stride
from lmopt.pipeline.base import Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float

AUTO = "auto"


@dataclass(frozen=True)
class RemovePool(Pass):
    """Takes the stride of a pool or of a convolution out of the trunk; weights are inherited.

    Maps behind it are larger: more work, and more detail to learn from. Convolutions behind are
    dilated, so that they find on the larger maps what they found before, and what reads a whole map
    goes on reading where the old pixels lie (`lmopt.ir.unstride`). The start is the old function
    but for global means, later pools and resizes, which see more pixels: pfld-0.25@300w without the
    stride of its stem starts at 6.23 % NME (4.87 with it), not dilated at 110 % (193 validation
    faces).

    Attributes:
        node: A pool or a convolution with a stride, or `auto`: the one without which the MACs are
            nearest to double, the first of equals.
        dilate: Whether convolutions and pools behind reach as far as before.
        keep_window: Whether a pool stays, with a stride of 1; it goes where not, and the start is
            farther from the old function.
    """

    name: ClassVar[str] = "remove-pool"
    node: str = AUTO
    dilate: bool = True
    keep_window: bool = True

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        node = self._auto(graph) if self.node == AUTO else self._named(graph)
        try:
            result, fitted = self._removed(graph, node)
        except GraphError as error:
            raise PassError(
                f"{self.name} of %{node.name} does not fit: {error.what}",
                where=error.where,
                hint="name another node, or let node=auto choose one",
            ) from error
        return PassResult(result, True, (_note(graph, node, result), *fitted))

    def _removed(self, graph: Graph, node: Node) -> tuple[Graph, tuple[str, ...]]:
        return remove_stride(
            graph, node.name, self.name, dilate=self.dilate, keep_window=self.keep_window
        )

    def _named(self, graph: Graph) -> Node:
        strided = [node.name for node in graph.nodes if has_stride(node)]
        if self.node in strided:
            return graph.node(self.node)
        if self.node not in graph:
            raise PassError(
                f"{self.name}: no node '{self.node}' in graph '{graph.name}'",
                hint=did_you_mean(self.node, strided) or f"with a stride: {', '.join(strided)}",
            )
        raise PassError(
            f"{self.name} wants a pool or a convolution with a stride, got "
            f"{graph.node(self.node).op.kind}",
            where=f"%{self.node}",
            hint=f"those are {', '.join(strided)}" if strided else "the graph has none",
        )

    def _auto(self, graph: Graph) -> Node:
        shapes = strip_weights(graph)
        best: tuple[int, Node] | None = None
        for node in filter(has_stride, graph.nodes):
            try:
                macs = self._removed(shapes, node)[0].macs
            except GraphError:  # what is behind has no larger form
                continue
            distance = abs(macs - 2 * graph.macs)
            if best is None or distance < best[0]:
                best = (distance, node)
        if best is None:
            raise PassError(f"{self.name}: no pool and no stride that can go", where=graph.name)
        return best[1]


def _note(graph: Graph, node: Node, result: Graph) -> str:
    kept = node.name if node.name in result else node.inputs[0].node
    old, new = node.results[0].shape, result.node(kept).results[0].shape
    what = f"the stride of %{node.name}" if node.name in result else f"%{node.name}"
    return f"{what} removed ({old[1]}x{old[2]} -> {new[1]}x{new[2]}); {size_change(graph, result)}"
