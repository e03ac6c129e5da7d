"""Graph to TFLite file, straight through the schema's objects: no TensorFlow, no converter."""

from __future__ import annotations

from collections.abc import Mapping

from lmopt.codegen.legality import check
from lmopt.codegen.table import EMITTERS
from lmopt.codegen.writer import Writer
from lmopt.ir.graph import Graph, Value


def emit(graph: Graph, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Returns the TFLite file of a graph; equal graphs give equal bytes.

    Tensors and the signature `serving_default` carry the names of the graph's inputs and outputs.
    An unknown batch is written as 1 and may be resized. A kernel without a bias gets zeros, since
    delegates want one; batch norms become a product and a sum.

    Args:
        graph: Float, float with float16 weights, or full integer on the grids it carries.
        metadata: Texts stored under their names in the model's metadata.

    Raises:
        GraphError: Weights without values, or what the runtime would refuse.
        BackendError: A grid that is too fine for the runtime's kernels.
    """
    return _written(graph).finish(metadata or {})


def tensor_names(graph: Graph) -> Mapping[Value, str]:
    """Returns what the tensor of each value is called in the file that `emit` gives."""
    return _written(graph).value_names


def _written(graph: Graph) -> Writer:
    check(graph)
    writer = Writer(graph)
    for node in graph.inputs:
        writer.tensor(node.value)
    for node in graph.nodes:
        EMITTERS[node.op.kind](writer, node)
    return writer
