"""Preconditions that several passes share."""

from __future__ import annotations

from lmopt.errors import PassError
from lmopt.ir.graph import Graph
from lmopt.ir.types import DType


def require_float(graph: Graph, pass_name: str) -> None:
    """Raises PassError, naming the first other node, unless values and weights are float32."""
    for node in graph.nodes:
        types = (*node.results, *(weight.type for weight in node.weights.values()))
        for found in types:
            if found.dtype is not DType.F32:
                raise PassError(
                    f"{pass_name} works on float32 graphs, this one holds {found.dtype}",
                    where=f"%{node.name}",
                    hint=f"put {pass_name} before the passes that change the storage type",
                )


def require_weights(graph: Graph, pass_name: str) -> None:
    """Raises PassError, naming the first node without values, unless every weight has values."""
    for node in graph.nodes:
        if any(weight.array is None for weight in node.weights.values()):
            raise PassError(
                f"{pass_name} reads weights, and this node has none yet",
                where=f"%{node.name}",
                hint="train the detector first, or take one with weights",
            )
