"""A graph with inputs to run it on: what the strategies draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from lmopt.ir.graph import Graph

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """A graph and arrays for its inputs; it prints as IR text."""

    graph: Graph
    inputs: Arrays

    def __repr__(self) -> str:
        shapes = {name: f"{array.dtype}{list(array.shape)}" for name, array in self.inputs.items()}
        return f"\n{self.graph}on {shapes}"


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedCase:
    """A float graph, an integer graph made of it, and real inputs; prints as the integer graph.

    Attributes:
        reference: Float.
        quantized: The same on grids that were calibrated on the inputs.
        inputs: Real values for both.
    """

    reference: Graph
    quantized: Graph
    inputs: Arrays

    def __repr__(self) -> str:
        return repr(Case(self.quantized, self.inputs))
