"""Other map sizes within a graph: an op that shrinks maps put in, what reads whole maps fitted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Loc, Node, Value
from lmopt.ir.ops import (
    AvgPool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    HeatmapDecode,
    LeakyRelu,
    MaxPool2D,
    Op,
    Relu,
    Relu6,
    Reshape,
    ResizeBilinear,
    ResizeNearest,
    Slice,
)
from lmopt.ir.types import TensorType, Weight


def insert_shrinking(
    graph: Graph,
    place: Value,
    name: str,
    op: Op,
    history: str,
    *,
    along: Mapping[str, Op] | None = None,
) -> tuple[Graph, tuple[str, ...]]:
    """Returns `graph` with `op` between `place` and everything that reads it, and what was fitted.

    Ops behind run on the smaller maps as they are. What is as large as the map it reads is fitted
    to the smaller one: rows of a dense kernel behind a flatten, and windows of valid convolutions
    and pools. Behind a pool every old pixel is read from the new pixel that covers it (row i of n
    from row floor(i m / n) of m), so kernel entries of the pixels under one new pixel are summed.
    Behind a resize, whose maps are no whole fraction of the old, it is read from all that it
    overlaps, by their shares: 9.8 instead of 33.1 % NME for pfld-0.25@300w from 112 to 96 pixels
    before any training (193 validation faces). A resize keeps its factor.

    Args:
        graph: A float graph.
        place: Whose readers get the result of `op` instead; an output stays as it was.
        name: Of the new node.
        op: Takes and gives a map of the same channels.
        history: Name of the pass, for the provenance of what changed.
        along: Ops that take the place of others at the same time, by node.

    Raises:
        GraphError: Something behind does not fit; the node is named.
    """
    if not graph.users(place):
        raise GraphError("nothing reads this value", where=str(place))
    return _Insertion(graph, place, name, op, history, along or {}).run()


class Refit(ABC):
    """A walk through a graph whose maps change their size from some node on.

    Attributes:
        graph: As it was.
        history: Name of the pass.
        notes: What was fitted.
        seen: By old value, what its readers now see.
    """

    def __init__(self, graph: Graph, history: str) -> None:
        self.graph, self.history = graph, history
        self.edit = Edit(graph.name)
        self.notes: list[str] = []
        self.seen: dict[Value, TensorType] = {}
        # By old value, what stands for it, and the maps a flat vector was made of.
        self.moved: dict[Value, Value] = {}
        self.maps: dict[Value, tuple[Value, ...]] = {}

    def run(self) -> tuple[Graph, tuple[str, ...]]:
        """Returns the new graph and what was fitted.

        Raises:
            GraphError: Something behind does not fit; the node is named.
        """
        for node in self.graph.nodes:
            self.put(node)
            self.maps[node.value] = self._maps(node)
        for name, value in self.graph.outputs:
            got, wanted = self.edit.node(value.node).results[0], self.graph.type(value)
            if got != wanted:
                raise GraphError(
                    f"output '{name}' would change from {wanted} to {got}", where=str(value)
                )
            self.edit.output(name, value)
        return self.edit.done(), tuple(self.notes)

    def put(self, node: Node) -> None:
        """Adds what becomes of a node."""
        self.add(node, self.fit(node))

    def add(self, node: Node, fitted: Node) -> None:
        """Adds a node that was fitted, for the one it was."""
        inputs = tuple(self.moved.get(value, value) for value in fitted.inputs)
        self.edit.put(replace(fitted, inputs=inputs))
        self.seen[node.value] = fitted.results[0]

    @abstractmethod
    def kernel(
        self, read: Value, kernel: NDArray[np.float32], axis: int, size: int
    ) -> NDArray[np.float32]:
        """Returns a kernel that read an old map whole, fitted along one axis to its new size."""

    def window(self, node: Node) -> Op:
        """Returns the op that stands for one whose operands changed their size."""
        return fit_op(node, self.graph.input_types(node)[0], self.seen[node.inputs[0]])

    def replaced(self, node: Node, op: Op) -> Node:
        """Returns a node with another op of the same weights."""
        operands = [self.seen[value] for value in node.inputs]
        return replace(
            node, op=op, results=infer(node, op, operands), loc=node.loc.via(self.history)
        )

    def fit(self, node: Node) -> Node:
        """Returns a node for operands of other sizes; its inputs are the old ones."""
        old = self.graph.input_types(node)
        new = tuple(self.seen[value] for value in node.inputs)
        if old == new:
            return node
        if not isinstance(node.op, Concat) and len({t.shape for t in new}) > len(
            {t.shape for t in old}
        ):
            raise GraphError(
                f"its operands would become {' and '.join(map(str, new))}", where=f"%{node.name}"
            )
        op = self.window(node)
        results = infer(node, op, new)
        weights = dict(node.weights)
        for key, shape in op.params(new).items():
            if weights[key].type.shape != shape:
                weights[key] = self._fit_weight(node, key, shape)
                before = "x".join(map(str, node.weights[key].type.shape))
                after = "x".join(map(str, shape))
                self.notes.append(f"{key} of %{node.name} {before} -> {after}")
        loc = node.loc if op == node.op else node.loc.via(self.history)
        return replace(node, op=op, results=results, weights=weights, loc=loc)

    def _fit_weight(self, node: Node, key: str, shape: tuple[int, ...]) -> Weight:
        weight = node.weights[key]
        if weight.array is None:
            return Weight(TensorType(weight.type.dtype, shape))
        if isinstance(node.op, (Conv2D, DepthwiseConv2D)) and shape[2:] == weight.type.shape[2:]:
            return Weight.of(self._kernel(node.inputs[0], weight.real(), (shape[0], shape[1])))
        if not isinstance(node.op, Dense):
            raise GraphError(
                f"its '{key}' cannot be fitted to fewer features", where=f"%{node.name}"
            )
        kernel, start, rows = weight.real(), 0, []
        for value in self.maps[node.inputs[0]]:
            old, new = map_dims(self.graph.type(value)), map_dims(self.seen[value])
            if old[2] != new[2]:
                raise GraphError(
                    f"the features of {value} would change from {old[2]} to {new[2]} and their "
                    "place in the map is not known",
                    where=f"%{node.name}",
                )
            stop = start + math.prod(old)
            block = self._kernel(value, kernel[start:stop].reshape(*old, -1), new[:2])
            rows.append(block.reshape(math.prod(new), -1))
            start = stop
        return Weight.of(rows[0] if len(rows) == 1 else np.concatenate(rows))

    def _kernel(
        self, read: Value, kernel: NDArray[np.float32], sides: tuple[int, int]
    ) -> NDArray[np.float32]:
        for axis, size in enumerate(sides):
            if kernel.shape[axis] != size:
                kernel = self.kernel(read, kernel, axis, size)
        return kernel

    def _maps(self, node: Node) -> tuple[Value, ...]:
        rank = self.graph.type(node.value).rank
        if isinstance(node.op, Reshape) and rank == 2:
            source = node.inputs[0]
            return (source,) if self.graph.type(source).rank == 4 else self.maps[source]
        if isinstance(node.op, Concat) and rank == 2:
            return tuple(value for operand in node.inputs for value in self.maps[operand])
        if isinstance(node.op, (BatchNorm, Relu, Relu6, LeakyRelu)):
            return self.maps[node.inputs[0]] if rank == 2 else (node.value,)
        return (node.value,)


class _Insertion(Refit):
    def __init__(
        self,
        graph: Graph,
        place: Value,
        name: str,
        op: Op,
        history: str,
        along: Mapping[str, Op],
    ) -> None:
        super().__init__(graph, history)
        self.place, self.along = place, along
        self.new = Node(name, op, (place,), (), loc=Loc(place.node, (history,)))
        self.shrink = _by_share if isinstance(op, ResizeBilinear) else _by_cover

    def put(self, node: Node) -> None:
        super().put(node)
        if node.value == self.place:
            results = infer(self.new, self.new.op, [self.seen[self.place]])
            self.new = replace(self.new, results=results)
            self.moved[self.place] = self.edit.put(self.new)
            self.seen[self.place] = results[0]

    def fit(self, node: Node) -> Node:
        if node.name in self.along:
            return self.replaced(node, self.along[node.name])
        return super().fit(node)

    def window(self, node: Node) -> Op:
        if isinstance(node.op, HeatmapDecode):
            self._require_picture(node)
        return super().window(node)

    def _require_picture(self, node: Node) -> None:
        """Raises GraphError where a map of other proportions would move what is read from it."""
        before, after = (map_dims(t) for t in (self.graph.type(self.place), self.new.results[0]))
        (source,) = node.inputs
        (tall, wide, _), (low, narrow, _) = (
            map_dims(types) for types in (self.graph.type(source), self.seen[source])
        )
        if (low * before[0], narrow * before[1]) != (tall * after[0], wide * after[1]):
            raise GraphError(
                f"its map of {tall}x{wide} would become {low}x{narrow}, no longer in proportion to "
                f"{after[0]}x{after[1]}, and give other coordinates",
                where=f"%{node.name}",
            )

    def kernel(
        self, read: Value, kernel: NDArray[np.float32], axis: int, size: int
    ) -> NDArray[np.float32]:
        return self.shrink(kernel, axis, size)


def fit_op(node: Node, old: TensorType, new: TensorType) -> Op:
    """Returns the op that stands for a node's where a map of another size is read.

    Raises:
        GraphError: It has no meaning on a map of another size.
    """
    op = node.op
    if isinstance(op, Reshape) and -1 not in op.shape and len(op.shape) == 1:
        return replace(op, shape=(new.elements,))
    if isinstance(op, Slice) and old.rank == 4 and not (op.is_whole(1) and op.is_whole(2)):
        raise GraphError("it cuts a piece out of the old map", where=f"%{node.name}")
    side = (old.shape[1], old.shape[2]) if old.rank == 4 else None
    if side is None or side == (1, 1):
        return op
    height, width = new.shape[1], new.shape[2]
    assert height is not None and width is not None
    if isinstance(op, (Conv2D, DepthwiseConv2D)) and op.padding == "valid" and op.kernel == side:
        return replace(op, kernel=(height, width))
    if isinstance(op, (ResizeBilinear, ResizeNearest)):
        tall, wide, _ = map_dims(old)
        size = (_scaled(op.size[0], tall, height), _scaled(op.size[1], wide, width))
        return replace(op, size=size)
    if isinstance(op, (AvgPool2D, MaxPool2D)) and op.padding == "valid" and op.size == side:
        return replace(op, size=(height, width))
    return op


def _scaled(size: int, old: int, new: int) -> int:
    """Returns the size that is to `new` as `size` is to `old`, at least 1."""
    return max(1, round(size * new / old))


def infer(node: Node, op: Op, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
    """Returns the types of what a node gives with another op, or raises GraphError naming it."""
    try:
        results = op.infer(operands)
        op.params(operands)
    except GraphError as error:
        raise GraphError(error.what, where=f"%{node.name}", hint=error.hint) from error
    return results


def map_dims(type: TensorType) -> tuple[int, int, int]:
    """Returns height, width and channels of a map; features are a map of one pixel."""
    dims = [dim or 1 for dim in type.shape[1:]]
    return (dims[0], dims[1], dims[2]) if len(dims) == 3 else (1, 1, type.elements)


def _by_cover(kernel: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float32]:
    """Returns `kernel` with entries along `axis` summed into `size` nearly equal runs."""
    length = kernel.shape[axis]
    starts = [-(-k * length // size) for k in range(size)]
    return np.asarray(np.add.reduceat(kernel, starts, axis), np.float32)


def _by_share(kernel: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float32]:
    """Returns `kernel` with entries along `axis` divided among the `size` ones they overlap."""
    length = kernel.shape[axis]
    old, new = np.arange(length + 1) / length, np.arange(size + 1) / size
    ends = np.minimum(old[1:], new[1:, None]) - np.maximum(old[:-1], new[:-1, None])
    shares = np.maximum(ends, 0) * length
    return np.moveaxis(np.tensordot(shares, kernel, (1, axis)), 0, axis).astype(np.float32)
