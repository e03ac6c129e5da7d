"""Parts of a graph that are quantized or left alone together."""

from __future__ import annotations

from lmopt.ir.graph import Graph
from lmopt.ir.ops import Constant, Input
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import stays_real
from lmopt.quant.weights import KERNEL_AXIS

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


def stages_of(graph: Graph, scheme: QuantScheme) -> list[Segment]:
    """Returns the nodes of each stage of a cascade: integer parts with real ones between them.

    The first stage sees what the inputs give, every later one what real nodes make of integers.
    Real nodes belong to the stage that they lead to; those behind the last integers to none.
    """
    level, integer = dict[str, int](), set[int]()
    for node in graph.nodes:
        is_real = stays_real(graph, node, scheme)
        sources = [graph.producer(value) for value in node.inputs]
        level[node.name] = max(
            (
                level[source.name] + (is_real and not stays_real(graph, source, scheme))
                for source in sources
                if not isinstance(source.op, Constant)
            ),
            default=0,
        )
        if not is_real and not isinstance(node.op, Input | Constant):
            integer.add(level[node.name])
    return [
        frozenset(name for name, found in level.items() if found == wanted)
        for wanted in sorted(integer)
    ]


def span(graph: Graph, part: Segment) -> str:
    """Returns a part's first and last node for people."""
    names = [node.name for node in graph.nodes if node.name in part]
    return f"%{names[0]}" if len(names) == 1 else f"%{names[0]}..%{names[-1]}"
