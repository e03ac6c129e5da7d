"""Sizes of graphs: what changed, in words, and graphs that only have shapes."""

from __future__ import annotations

from dataclasses import replace

from lmopt.ir.graph import Graph
from lmopt.ir.types import Weight


def size_change(before: Graph, after: Graph) -> str:
    """Returns MACs and parameters before and after, for notes that reach the report."""
    return (
        f"MACs {before.macs / 1e6:.1f} M -> {after.macs / 1e6:.1f} M, "
        f"parameters {before.parameters:,} -> {after.parameters:,}"
    )


def strip_weights(graph: Graph) -> Graph:
    """Returns `graph` without weight values: shapes, MACs and parameters at no memory."""
    nodes = tuple(
        replace(node, weights={k: Weight(w.type) for k, w in node.weights.items()})
        for node in graph.nodes
    )
    return Graph(graph.name, nodes, graph.outputs)
