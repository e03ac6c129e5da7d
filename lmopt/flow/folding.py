"""The float graph as it ships: batch norms folded into the convolutions before them."""

from __future__ import annotations

from lmopt import zoo
from lmopt.ir.graph import Graph
from lmopt.pipeline.base import PassContext
from lmopt.pipeline.manager import Pipeline


def folded(graph: Graph) -> Graph:
    """Returns the float graph that is emitted; missing weights are drawn, since sizes need some."""
    filled = graph if graph.is_initialized else zoo.initialize(graph, 0)
    return Pipeline.parse("fold-batchnorm").run(filled, PassContext()).graph
