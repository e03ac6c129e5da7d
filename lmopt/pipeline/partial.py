"""Quantizing passes that can put any part of a graph on grids, to see what that part costs."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lmopt.ir.graph import Graph
from lmopt.pipeline.base import PassContext


class PartlyQuantized(Protocol):
    """A calibrated float graph."""

    @property
    def graph(self) -> Graph:
        """The float graph, as it is before anything is put on grids."""

    def only(self, names: frozenset[str]) -> Graph:
        """Returns the graph with nothing but these nodes, and the inputs, on grids."""

    def corrected(self) -> Graph:
        """Returns the graph with everything on grids that the pass would put there."""


@runtime_checkable
class Calibrating(Protocol):
    """A pass that quantizes after calibration, without training."""

    def calibrated(self, graph: Graph, ctx: PassContext) -> PartlyQuantized:
        """Returns the graph with its ranges; any part of it can then be quantized.

        Raises:
            PassError: The graph cannot be quantized, or there are no faces.
        """
