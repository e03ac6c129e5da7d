"""The float graph that an integer graph stands for."""

from __future__ import annotations

from lmopt.ir.graph import Graph
from lmopt.ir.ops import Dequantize, Quantize
from lmopt.ir.types import DType, TensorType


def real_form(graph: Graph) -> Graph:
    """Returns the same graph in float32: no grids, no conversions, weights as their real values.

    Nodes keep their names. What separates the two is what the integers round, weights apart.
    """
    edit = graph.edit()
    for node in graph.nodes:
        if isinstance(node.op, Quantize | Dequantize):
            edit.rewire(node.value, edit.node(node.name).inputs[0])
            edit.remove(node.name)
            continue
        edit.set_type(node.value, TensorType(DType.F32, node.results[0].shape))
        real = {key: weight.real() for key, weight in node.weights.items() if weight.type.quant}
        edit.set_weights(node.name, **real)
    return edit.done()
