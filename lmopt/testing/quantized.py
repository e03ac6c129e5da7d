"""Random inputs, and random graphs put on grids that were calibrated on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmopt.codegen.legality import check
from lmopt.errors import BackendError, GraphError, PassError
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import quantize_graph
from lmopt.target.profile import EndType
from lmopt.testing.case import Arrays, QuantizedCase
from lmopt.testing.float_graphs import FLOAT_KINDS, graphs

Draw = Callable[[st.SearchStrategy[Any]], Any]
NORM_KINDS = frozenset({"batch_norm", "block"})
"""What must be folded before a graph can be quantized."""
REAL_KINDS = frozenset({"softmax", "exp", "square", "abs", "sqrt", "rsqrt", "div", "sum"})
"""What stays in float32, between conversions."""
STORED: Sequence[tuple[DType, EndType]] = (
    (DType.I8, "int8"),
    (DType.U8, "uint8"),
    (DType.I16, "int16"),
)
"""Storage types, and what inputs and outputs of each are called."""
INTEGER_KINDS = FLOAT_KINDS - NORM_KINDS - REAL_KINDS
MIXED_KINDS = FLOAT_KINDS - NORM_KINDS


@st.composite
def inputs(draw: Draw, graph: Graph, *, items: int = 2) -> dict[str, NDArray[Any]]:
    """Draws arrays for every input: over the whole grid of integer ones, normal for float32."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found: dict[str, NDArray[Any]] = {}
    for node in graph.inputs:
        type = node.results[0]
        shape = tuple(items if d is None else d for d in type.shape)
        if type.quant is None:
            found[node.name] = rng.normal(size=shape).astype(type.dtype.numpy)
        else:
            low, high = type.dtype.bounds
            found[node.name] = rng.integers(low, high, shape, endpoint=True).astype(
                type.dtype.numpy
            )
    return found


def put_on_grids(
    graph: Graph,
    values: Arrays,
    storage: DType,
    *,
    edge: EndType,
    real: frozenset[str] = frozenset(),
    wide: frozenset[str] = frozenset(),
) -> Graph:
    """Returns an integer form of a float graph, its ranges taken from one batch.

    Args:
        graph: Float32, without batch norms.
        values: The batch.
        storage: I8 or I16, with kernels per channel, or U8.
        edge: Element type of inputs and outputs.
        real: Nodes that stay in float32.
        wide: Nodes with 16-bit activations.
    """
    held = run(graph, values, all_values=True)
    ranges = {
        node.value: ValueRange(float(held[node.name].min()), float(held[node.name].max()))
        for node in graph.nodes
    }
    scheme = QuantScheme(storage, per_channel=storage.kernel is DType.I8, real=real, wide=wide)
    return quantize_graph(graph, ranges, scheme, input_type=edge, output_type=edge)


@st.composite
def quantized_graphs(
    draw: Draw, max_nodes: int = 5, kinds: Collection[str] = MIXED_KINDS
) -> QuantizedCase:
    """Draws a float graph, a batch, and the graph on grids calibrated on that batch.

    Storage, the types at the border and, now and then, nodes left in float32 or with 16-bit
    activations among others of eight are drawn as well.

    Args:
        draw: Given by hypothesis.
        max_nodes: Growing steps of the float graph.
        kinds: Op kinds to draw from; `INTEGER_KINDS` leaves none in float32.
    """
    graph = draw(graphs(max_nodes=max_nodes, kinds=kinds))
    values = draw(inputs(graph))
    storage, own = draw(st.sampled_from(STORED))
    edge = draw(st.sampled_from(["float32", own]))
    names = [n.name for n in graph.nodes if n.op.kind not in ("input", "constant")]

    def some(most: int) -> frozenset[str]:
        if not names or not draw(st.booleans()):
            return frozenset()
        return frozenset(draw(st.lists(st.sampled_from(names), max_size=most)))

    left = some(2) if REAL_KINDS & set(kinds) else frozenset[str]()
    wide = some(4)
    try:
        found = put_on_grids(graph, values, storage, edge=edge, real=left, wide=wide)
        check(found)
    except (BackendError, GraphError, PassError):
        # a range too narrow for the runtime, or nothing computed
        assume(False)
    return QuantizedCase(graph, found, values)
