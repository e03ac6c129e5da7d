"""The last layers, which cost next to nothing and where rounding hurts most, in float32."""

from __future__ import annotations

from lmopt.ir.graph import Graph

MACS_PERCENT = 1.0
PARAMETERS_PERCENT = 10.0


def float_head(graph: Graph) -> frozenset[str]:
    """Returns the nodes behind the last maps, as far back as they cost next to nothing.

    Vectors (rank 2 and less) from which only answers are computed, back to where their kernels
    would take more than `MACS_PERCENT` of the multiply-accumulates or `PARAMETERS_PERCENT` of the
    parameters. An error made there is an error of the landmarks: nothing evens it out any more.

    Source: measured on pfld-1.0@300w and pfld-0.25@300w (193 validation faces, mse ranges): the
        loss to be expected falls from 0.026 to 0.010 and from 0.022 to 0.015 points in int8, from
        0.033 to 0.011 and from 0.025 to 0.017 in uint8.
    """
    head: set[str] = set()
    macs = parameters = 0
    for node in reversed(graph.nodes):
        readers = {reader.name for reader, _ in graph.users(node.value)}
        shown = graph.is_output(node.value)
        if not node.inputs or not (readers or shown) or not readers <= head:
            continue
        macs += node.op.macs(graph.input_types(node))
        parameters += sum(weight.type.elements for weight in node.weights.values())
        cheap = (
            100 * macs <= MACS_PERCENT * graph.macs
            and 100 * parameters <= PARAMETERS_PERCENT * graph.parameters
        )
        if not cheap:
            break
        if node.results[0].rank <= 2:
            head.add(node.name)
    return frozenset(head)
