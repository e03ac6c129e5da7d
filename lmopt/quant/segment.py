"""Parts of a graph that are quantized or left alone together."""

from __future__ import annotations

from lmopt.ir.graph import Graph
from lmopt.quant.assign import KERNEL_AXIS

Segment = frozenset[str]
"""Names of the nodes of a part."""


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


def span(graph: Graph, part: Segment) -> str:
    """Returns a part's first and last node for people."""
    names = [node.name for node in graph.nodes if node.name in part]
    return f"%{names[0]}" if len(names) == 1 else f"%{names[0]}..%{names[-1]}"
