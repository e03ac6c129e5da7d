"""What a model needs in memory at least: activations that live at once, and weights."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
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
    ends = _ends(graph, found)
    nodes = [node for node in graph.nodes if node.op.kind != "constant"]
    steps = {node.name: step for step, node in enumerate(nodes)}
    owner: dict[Value, Value] = {}
    last: dict[Value, int] = {}
    for step, node in enumerate(nodes):
        for k in range(len(node.results)):
            value = Value(node.name, k)
            owner[value] = owner.get(node.inputs[0], value) if node.op.kind in ALIASES else value
            last.setdefault(owner[value], step)
        # A kernel holds its operands until the last of its nodes is done.
        done = steps[ends.get(node.name, node.name)]
        for value in node.inputs:
            if value in owner:
                last[owner[value]] = max(done, last[owner[value]])
    for _, value in graph.outputs:
        if value in owner:
            last[owner[value]] = len(nodes)
    for node in graph.inputs:
        last[node.value] = len(nodes)
    return Memory(
        _peak(nodes, last, ends.keys()),
        sum(w.type.nbytes for node in graph.nodes for w in node.weights.values()),
    )


def _ends(graph: Graph, found: Iterable[Kernel]) -> dict[str, str]:
    """Returns the last node of its kernel for every node whose result stays within."""
    ends: dict[str, str] = {}
    order = {node.name: step for step, node in enumerate(graph.nodes)}
    for kernel in found:
        *within, last = sorted((kernel.node, *kernel.fused), key=order.__getitem__)
        ends.update(dict.fromkeys(within, last))
    return ends


def _peak(nodes: list[Node], last: Mapping[Value, int], hidden: Container[str]) -> int:
    freed: dict[int, int] = {}
    live = peak = 0
    for step, node in enumerate(nodes):
        for k, tensor in enumerate(node.results):
            value = Value(node.name, k)
            if value in last and node.name not in hidden:
                live += tensor.nbytes
                freed[last[value]] = freed.get(last[value], 0) + tensor.nbytes
        peak = max(peak, live)
        live -= freed.pop(step, 0)
    return peak
