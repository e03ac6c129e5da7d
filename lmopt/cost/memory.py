"""What a model needs in memory at least: activations that live at once, and weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmopt.cost.kernels import Kernel
from lmopt.ir.graph import Graph, Node, Value

ALIASES = frozenset({"reshape"})
"""Ops whose result lies where their operand does."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one inference.

    Attributes:
        arena_bytes: Most activations that live at one time.
        weight_bytes: Weights as stored.
    """

    arena_bytes: int
    weight_bytes: int

    @property
    def total_bytes(self) -> int:
        """Returns activations and weights together."""
        return self.arena_bytes + self.weight_bytes


def peak_memory(graph: Graph, found: Iterable[Kernel]) -> Memory:
    """Returns what one inference holds at least, run in the graph's order.

    Runtimes' planners come near it. Values between a node and what is fused into it never exist;
    inputs and outputs live throughout.
    """
    hidden = _hidden(graph, found)
    nodes = [node for node in graph.nodes if node.op.kind != "constant"]
    owner: dict[Value, Value] = {}
    last: dict[Value, int] = {}
    for step, node in enumerate(nodes):
        for k in range(len(node.results)):
            value = Value(node.name, k)
            owner[value] = owner.get(node.inputs[0], value) if node.op.kind in ALIASES else value
            last[owner[value]] = step
        for value in node.inputs:
            if value in owner:
                last[owner[value]] = step
    for _, value in graph.outputs:
        if value in owner:
            last[owner[value]] = len(nodes)
    for node in graph.inputs:
        last[node.value] = len(nodes)
    return Memory(
        _peak(graph, nodes, last, hidden),
        sum(w.type.nbytes for node in graph.nodes for w in node.weights.values()),
    )


def _hidden(graph: Graph, found: Iterable[Kernel]) -> set[str]:
    """Returns the nodes whose results stay within a kernel: all of it but the last node."""
    hidden: set[str] = set()
    for kernel in found:
        if kernel.fused:
            names = {kernel.node, *kernel.fused}
            ordered = [node.name for node in graph.nodes if node.name in names]
            hidden.update(ordered[:-1])
    return hidden


def _peak(graph: Graph, nodes: list[Node], last: dict[Value, int], hidden: set[str]) -> int:
    ends: dict[int, int] = {}
    live = peak = 0
    for step, node in enumerate(nodes):
        for k, tensor in enumerate(node.results):
            value = Value(node.name, k)
            if value in last and node.name not in hidden:
                live += tensor.nbytes
                ends[last[value]] = ends.get(last[value], 0) + tensor.nbytes
        peak = max(peak, live)
        live -= ends.pop(step, 0)
    return peak
