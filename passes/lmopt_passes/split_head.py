"""split-head: a kernel over a concat becomes a sum of kernels, one per operand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import Add, Concat, Conv2D, Dense, Reshape
from lmopt.ir.types import DType, TensorType, Weight
from lmopt.pipeline.base import Pass, PassContext, PassResult, Preserves

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SplitHead(Pass):
    """Makes a dense layer per operand of every dense layer that reads a concat, and adds them up.

    Joined values are stored on one grid, so that the largest decides the step of all; apart, each
    has its own. Concats of concats and reshapes in between are followed where the elements of each
    operand are whole rows of the kernel.

    Attributes:
        convolutions: Whether convolutions over a concat of channels are split, too; each part is
            a map that costs an addition.
    """

    name: ClassVar[str] = "split-head"
    preserves: ClassVar[Preserves] = Preserves.VALUES
    convolutions: bool = False

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        edit, notes = graph.edit(), []
        for node in graph.nodes:
            op = node.op
            wanted = isinstance(op, Dense) or (
                self.convolutions and isinstance(op, Conv2D) and op.groups == 1
            )
            if wanted and node.results[0].dtype is DType.F32:
                parts = _parts_of(graph, node.inputs[0])
                if len(parts) > 1:
                    _split(edit, graph, node, parts)
                    notes.append(f"'%{node.name}' is a sum of {len(parts)} kernels")
        if not notes:
            return PassResult(graph, False, ("no kernel to be split reads a concat",))
        edit.prune_dead()
        return PassResult(edit.done(), True, tuple(notes))


def _parts_of(graph: Graph, value: Value) -> list[tuple[Value, Rows]]:
    """Returns the values that are joined in a kernel's operand, and their rows of the kernel."""
    dims = _dims(graph, value)
    if len(dims) == 1:
        return _followed(graph, value, np.arange(dims[0]))
    node, axis = graph.producer(value), len(dims)
    if not isinstance(node.op, Concat) or node.op.axis % (axis + 1) != axis:
        return [(value, np.arange(dims[-1]))]
    widths = [_dims(graph, operand)[-1] for operand in node.inputs]
    rows = np.split(np.arange(dims[-1]), np.cumsum(widths)[:-1])
    return list(zip(node.inputs, rows, strict=True))


def _followed(graph: Graph, value: Value, rows: Rows) -> list[tuple[Value, Rows]]:
    """Returns the parts of a value whose every element is one row: `rows`, in its shape."""
    node = graph.producer(value)
    if isinstance(node.op, Concat):
        axis = node.op.axis % graph.type(value).rank - 1
        lengths = [_dims(graph, operand)[axis] for operand in node.inputs]
        pieces = np.split(rows, np.cumsum(lengths)[:-1], axis)
        return [
            part
            for operand, piece in zip(node.inputs, pieces, strict=True)
            for part in _followed(graph, operand, piece)
        ]
    if isinstance(node.op, Reshape):
        source = node.inputs[0]
        parts = _followed(graph, source, rows.reshape(_dims(graph, source)))
        if len(parts) > 1:
            return parts
    return [(value, rows)]


def _dims(graph: Graph, value: Value) -> tuple[int, ...]:
    return tuple(d for d in graph.type(value).shape[1:] if d is not None)


def _split(edit: Edit, graph: Graph, node: Node, parts: list[tuple[Value, Rows]]) -> None:
    """Makes a kernel the sum of one per part; the last sum keeps its name."""
    op = node.op
    assert isinstance(op, Dense | Conv2D)
    flat = graph.type(node.inputs[0]).rank == 2
    kernel = node.weight("kernel")
    total: Value | None = None
    for index, (value, rows) in enumerate(parts):
        name = edit.fresh(f"{node.name}_part{index}")
        if flat and rows.ndim > 1:
            value = edit.add(edit.fresh(f"{name}_flat"), Reshape(), value, loc=node.loc)
        weights = {"kernel": _some_rows(kernel, rows.reshape(-1))}
        if index == 0 and "bias" in node.weights:
            weights["bias"] = node.weight("bias")
        piece = replace(op, use_bias="bias" in weights, activation="none")
        given = edit.add(name, piece, value, weights=weights, loc=node.loc)
        if total is None:
            total = given
        elif index < len(parts) - 1:
            sum_name = edit.fresh(f"{node.name}_sum{index}")
            total = edit.add(sum_name, Add(), total, given, loc=node.loc)
        else:
            edit.set_op(node.name, Add(op.activation))
            edit.set_inputs(node.name, total, given)
            edit.set_weights(node.name, **dict.fromkeys(node.weights))
            edit.touch(node.name, SplitHead.name)


def _some_rows(kernel: Weight, rows: Rows) -> Weight:
    if kernel.array is None:
        *window, _, made = kernel.type.shape
        return Weight(TensorType(DType.F32, (*window, len(rows), made)))
    return Weight.of(np.take(kernel.real(), rows, axis=-2))
