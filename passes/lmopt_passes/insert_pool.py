"""insert-pool: a max-pool in the middle of a network, later kernels fitted to smaller maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmopt.errors import GraphError, PassError, UsageError, did_you_mean
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import MaxPool2D
from lmopt.ir.refit import insert_shrinking
from lmopt.ir.size import size_change, strip_weights
from lmopt.pipeline.base import Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float
from lmopt_passes.map_fit import fit_where_faces_are

AUTO = "auto"
_FOLLOWERS = frozenset(
    ("batch_norm", "relu", "relu6", "leaky_relu", "prelu", "sigmoid", "tanh", "hard_swish")
)
_PLACES = frozenset(("conv2d", "conv2d_transpose", "depthwise_conv2d"))


@dataclass(frozen=True)
class InsertPool(Pass):
    """Puts a max-pool after a node; weights are inherited.

    The pool goes behind the batch norm and activation that follow the node, if any. Convolutions
    and pools behind it run on the smaller maps as they are. What read a whole map (a dense layer
    behind a flatten, a valid convolution as large as its map) is fitted to the smaller one by
    summing the kernel entries of the old pixels that a new pixel covers, so that an answer on maps
    that hardly vary within a pooled window hardly changes (`lmopt.ir.refit`). Where there are
    calibration faces, every kernel behind the pool is then fitted to answer on them what it
    answered (`passes/lmopt_passes/map_fit.py`).

    Attributes:
        after: Name of the node, or `auto`: the convolution behind which a pool fits and leaves
            nearest to half of the MACs, the first of equals.
        size: Window and stride.
        reconstruct: Whether kernels are fitted where there are calibration faces.
        faces: Calibration faces, of the training split.
    """

    name: ClassVar[str] = "insert-pool"
    after: str = AUTO
    size: int = 2
    reconstruct: bool = True
    faces: int = 100

    def __post_init__(self) -> None:
        if self.faces < 1:
            raise UsageError(f"faces is {self.faces}, wanted at least 1")
        if self.size < 2:
            raise UsageError(f"size is {self.size}, wanted at least 2")

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        place = self._auto(graph) if self.after == AUTO else self._named(graph, self.after)
        name = Edit.of(graph).fresh(f"{place.node}_pool")
        try:
            result, fitted = self._insert(graph, place, name)
        except GraphError as error:
            raise PassError(
                f"{self.name} after {place} does not fit: {error.what}",
                where=error.where,
                hint="name another node, or let after=auto choose one",
            ) from error
        old, new = graph.type(place).shape, result.node(name).results[0].shape
        note = (
            f"max-pool {self.size}x{self.size} after {place} ({old[1]}x{old[2]} -> "
            f"{new[1]}x{new[2]}); {size_change(graph, result)}"
        )
        notes = (note, *fitted)
        if self.reconstruct:
            result, refitted = fit_where_faces_are(graph, result, ctx, faces=self.faces)
            notes += refitted
        return PassResult(result, True, notes)

    def _insert(self, graph: Graph, place: Value, name: str) -> tuple[Graph, tuple[str, ...]]:
        window = (self.size, self.size)
        return insert_shrinking(graph, place, name, MaxPool2D(window, window), self.name)

    def _named(self, graph: Graph, name: str) -> Value:
        if name not in graph:
            raise PassError(
                f"{self.name}: no node '{name}' in graph '{graph.name}'",
                hint=did_you_mean(name, [node.name for node in graph.nodes])
                or "lmopt inspect --ir lists them",
            )
        shape = graph.node(name).results[0].shape
        if len(shape) != 4:
            raise PassError(
                f"{self.name} wants a node that gives a map, got {graph.node(name).results[0]}",
                where=f"%{name}",
            )
        return _behind(graph, graph.node(name).value)

    def _auto(self, graph: Graph) -> Value:
        shapes = strip_weights(graph)
        best: tuple[int, Value] | None = None
        for node in graph.nodes:
            if node.op.kind not in _PLACES:
                continue
            place = _behind(graph, node.value)
            try:
                macs = self._insert(shapes, place, "pool candidate")[0].macs
            except GraphError:  # it fits no pool
                continue
            distance = abs(2 * macs - graph.macs)
            if best is None or distance < best[0]:
                best = (distance, place)
        if best is None:
            raise PassError(
                f"{self.name}: a {self.size}x{self.size} pool fits behind no convolution",
                where=graph.name,
            )
        return best[1]


def _behind(graph: Graph, value: Value) -> Value:
    """Returns the value after the batch norm and activations that alone read `value`."""
    users = graph.users(value)
    if len(users) != 1 or graph.is_output(value) or users[0][0].op.kind not in _FOLLOWERS:
        return value
    return _behind(graph, users[0][0].value)
