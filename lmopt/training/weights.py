"""Weight values of a graph as arrays by `node/parameter`, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import PassError
from lmopt.ir.graph import Graph
from lmopt.ir.types import DType, Weight

Arrays = Mapping[str, NDArray[np.generic]]


def require_trainable(graph: Graph) -> None:
    """Raises PassError unless `graph` is a float graph with values for every weight."""
    for node in graph.nodes:
        tensors = (*node.results, *(weight.type for weight in node.weights.values()))
        if any(tensor.quant is not None or not tensor.dtype.is_float for tensor in tensors):
            raise PassError(
                f"{node.op.kind} works on integers, which cannot be trained",
                where=f"%{node.name}",
                hint="train the float graph: put training passes before quantize-*",
            )
    unset = [key for key, weight in graph.weights().items() if weight.array is None]
    if unset:
        raise PassError(
            f"{len(unset)} weight(s) have no values yet ('{unset[0]}' is the first)",
            where=graph.name,
            hint="initialise the graph before training it",
        )


def with_arrays(graph: Graph, arrays: Arrays) -> Graph:
    """Returns `graph` with new weight values, each in the element type it had.

    Args:
        graph: Any graph.
        arrays: Values by `node/parameter`; a weight that is not named stays.

    Raises:
        GraphError: A value fits no weight.
    """
    edit = graph.edit()
    for key, array in arrays.items():
        name, _, parameter = key.rpartition("/")
        wanted: DType = graph.node(name).weight(parameter).type.dtype
        edit.set_weights(name, **{parameter: Weight.of(np.asarray(array, wanted.numpy))})
    return edit.done()
