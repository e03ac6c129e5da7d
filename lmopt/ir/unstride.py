"""Taking a stride out of a graph: maps behind it grow, kernels go on reading the same places."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.op import Op, window_size
from lmopt.ir.ops import (
    AvgPool2D,
    Conv2D,
    Conv2DTranspose,
    DepthwiseConv2D,
    HeatmapDecode,
    MaxPool2D,
    Pad,
    ResizeBilinear,
    ResizeNearest,
)
from lmopt.ir.refit import Refit, fit_op, infer
from lmopt.ir.types import TensorType

_POOLS = (MaxPool2D, AvgPool2D)
STRIDED = (MaxPool2D, AvgPool2D, Conv2D, DepthwiseConv2D)
"""Ops whose stride can go."""


def has_stride(node: Node) -> bool:
    """Returns whether a node has a stride that can be removed."""
    return isinstance(node.op, STRIDED) and max(node.op.stride) > 1


def remove_stride(
    graph: Graph, name: str, history: str, *, dilate: bool, keep_window: bool = True
) -> tuple[Graph, tuple[str, ...]]:
    """Returns `graph` with every window of the pool or convolution `name`, and what was fitted.

    Maps behind are larger. Dilated, convolutions find on them what they found before: pixel `i` of
    an old map lies at `scale * i` and an offset, and what lies between are the answers for windows
    that the stride left out (the algorithm à trous). Pools have no dilation, theirs are widened to
    reach as far; resizes stay as they are. What reads a whole map goes on reading where the old
    pixels lie, the nearest two where that is between pixels.

    Args:
        graph: A float graph.
        name: A pool or convolution with a stride.
        history: Name of the pass, for the provenance of what changed.
        dilate: Whether convolutions and pools behind reach as far as before.
        keep_window: Whether a pool stays, with a stride of 1; a pixel stands for its window where
            it goes.

    Raises:
        GraphError: Something behind does not fit; the node is named.
        GraphError: The node has no stride.

    Source: Holschneider et al., "A real-time algorithm for signal analysis with the help of the
        wavelet transform", 1990; Chen et al., "DeepLab", 2016 (arXiv:1606.00915), section 3.1.
    """
    node = graph.node(name)
    if not has_stride(node):
        raise GraphError("it has no stride", where=f"%{name}")
    if graph.is_output(node.value):
        raise GraphError("its map is an output, whose size would change", where=f"%{name}")
    return _Removal(graph, node, history, dilate, keep_window).run()


@dataclass(frozen=True)
class _Line:
    """Where the pixels of an old map lie on the new one, along one axis."""

    scale: int = 1
    offset: Fraction = Fraction(0)


_Grid = tuple[_Line, _Line]
_SAME: _Grid = (_Line(), _Line())


class _Removal(Refit):
    def __init__(
        self, graph: Graph, gone: Node, history: str, dilate: bool, keep_window: bool
    ) -> None:
        super().__init__(graph, history)
        self.gone, self.dilate, self.keep_window = gone, dilate, keep_window
        self.grids: dict[Value, _Grid] = {}

    def put(self, node: Node) -> None:
        if node == self.gone and not self.keep_window and isinstance(node.op, _POOLS):
            (source,) = node.inputs
            self.moved[node.value] = self.moved.get(source, source)
            self.seen[node.value] = self.seen[source]
            self.grids[node.value] = self._parted(node, None)
            return
        fitted = self.fit(node)
        grid = self._grid(node, fitted.op)
        if self._is_between(node, fitted, grid):
            grid = self._padded(node, fitted)
        else:
            self.add(node, fitted)
        self.grids[node.value] = grid

    def _is_between(self, node: Node, fitted: Node, grid: _Grid) -> bool:
        """Returns whether all windows of a dilated convolution lie between those of old pixels."""
        op, new = node.op, fitted.op
        if not isinstance(op, Conv2D | DepthwiseConv2D) or not self.dilate or node == self.gone:
            return False
        if not isinstance(new, Conv2D | DepthwiseConv2D) or new.kernel != op.kernel:
            return False  # it reads a whole map
        whole = [line.offset.denominator == 1 for line in self.grids[node.inputs[0]]]
        parted = [line.offset.denominator > 1 for line in grid]
        return any(a and b for a, b in zip(whole, parted, strict=True))

    def _padded(self, node: Node, fitted: Node) -> _Grid:
        """Adds a dilated convolution behind a padding that puts windows where the old ones lay.

        A stride parts the padding of a larger map otherwise.
        """
        (source,), op, new = node.inputs, node.op, fitted.op
        assert isinstance(op, STRIDED) and isinstance(new, Conv2D | DepthwiseConv2D)
        before, margins = self.grids[source], list[int]()
        for axis, line in enumerate(before):
            reach, stride = (new.kernel[axis] - 1) * new.dilation[axis], op.stride[axis]
            start = Fraction(reach, 2) - line.scale * _centre(op, self.graph.type(source), axis)
            first = math.ceil(start + (stride - 1) * line.offset)
            pixels = line.scale * (node.results[0].shape[axis + 1] or 1)
            read = (pixels - 1) * stride + reach + 1
            margins += [first, max(read - first - (self.seen[source].shape[axis + 1] or 1), 0)]
        top, bottom, left, right = margins
        name, loc = self.graph.edit().fresh(f"{node.name}_pad"), node.loc.via(self.history)
        pad = Pad(top=top, bottom=bottom, left=left, right=right)
        value = self.edit.add(name, pad, self.moved.get(source, source), loc=loc)
        new = replace(new, padding="valid")
        results = infer(node, new, [self.edit.node(name).results[0]])
        self.add(node, replace(fitted, op=new, results=results, inputs=(value,)))
        return before

    def fit(self, node: Node) -> Node:
        if node == self.gone:
            return self.replaced(node, _every_window(node.op))
        return super().fit(node)

    def window(self, node: Node) -> Op:
        op = fit_op(node, self.graph.input_types(node)[0], self.seen[node.inputs[0]])
        scale = self._scale(node.inputs[0])
        if op != node.op or scale == (1, 1):
            return op
        if isinstance(op, HeatmapDecode):
            self._require_scaled(node, scale)
        if self.dilate and isinstance(op, Pad):
            (high, wide), pad = scale, op
            return Pad(pad.top * high, pad.bottom * high, pad.left * wide, pad.right * wide)
        if self.dilate and isinstance(op, Conv2D | DepthwiseConv2D):
            dilation = tuple(
                factor * each if length > 1 else each
                for factor, each, length in zip(scale, op.dilation, op.kernel, strict=True)
            )
            return replace(op, dilation=(dilation[0], dilation[1]))
        if self.dilate and isinstance(op, _POOLS):
            high, wide = (
                (length - 1) * factor + 1 for length, factor in zip(op.size, scale, strict=True)
            )
            return replace(op, size=(high, wide), padding="same")
        return op

    def kernel(
        self, read: Value, kernel: NDArray[np.float32], axis: int, size: int
    ) -> NDArray[np.float32]:
        line, length = self.grids[read][axis], kernel.shape[axis]
        places = np.array([float(line.scale * i + line.offset) for i in range(length)])
        places = np.clip(places, 0, size - 1)
        shares = np.maximum(1 - np.abs(np.arange(size)[:, None] - places), 0)
        return np.moveaxis(np.tensordot(shares, kernel, (1, axis)), 0, axis).astype(np.float32)

    def _scale(self, value: Value) -> tuple[int, int]:
        rows, columns = self.grids[value]
        return rows.scale, columns.scale

    def _grid(self, node: Node, new: Op) -> _Grid:
        """Returns where a node's pixels lie, by the centres of the windows they come from."""
        if self.graph.type(node.value).rank != 4 or not node.inputs:
            return _SAME
        if node == self.gone:
            return self._parted(node, new)
        op = node.op
        before = self.grids[node.inputs[0]]
        if isinstance(op, ResizeBilinear | ResizeNearest | Conv2DTranspose):
            return before
        if isinstance(op, Pad) and isinstance(new, Pad):
            rows, columns = (
                _Line(line.scale, line.offset + here - line.scale * there)
                for line, here, there in zip(
                    before, (new.top, new.left), (op.top, op.left), strict=True
                )
            )
            return rows, columns
        if not isinstance(op, STRIDED) or before == _SAME:
            return next((g for v in node.inputs if (g := self.grids[v]) != _SAME), _SAME)
        assert isinstance(new, STRIDED)
        old_map, new_map = self.graph.type(node.inputs[0]), self.seen[node.inputs[0]]
        rows, columns = (
            _Line(
                line.scale,
                (
                    line.scale * _centre(op, old_map, axis)
                    + line.offset
                    - _centre(new, new_map, axis)
                )
                / op.stride[axis],
            )
            for axis, line in enumerate(before)
        )
        return rows, columns

    def _parted(self, node: Node, new: Op | None) -> _Grid:
        """Returns where the pixels of the map lie whose stride goes; without an op, its operand."""
        assert isinstance(node.op, STRIDED)
        op, source = node.op, self.graph.input_types(node)[0]
        rows, columns = (
            _Line(
                op.stride[axis],
                _centre(op, source, axis) - (0 if new is None else _centre(new, source, axis)),
            )
            for axis in (0, 1)
        )
        return rows, columns

    def _require_scaled(self, node: Node, scale: tuple[int, int]) -> None:
        """Raises GraphError where a heatmap would no longer be the old one in larger."""
        old, new = self.graph.input_types(node)[0], self.seen[node.inputs[0]]
        wanted = tuple((side or 1) * by for side, by in zip(old.shape[1:3], scale, strict=True))
        if new.shape[1:3] != wanted:
            raise GraphError(
                f"its map would become {new.shape[1]}x{new.shape[2]}, no longer "
                f"{scale[0]}x{scale[1]} times the old one, and give other coordinates",
                where=f"%{node.name}",
            )


def _every_window(op: Op) -> Op:
    """Returns an op with a stride of 1; a pool gives a map as large as it reads."""
    if isinstance(op, MaxPool2D | AvgPool2D):
        return replace(op, stride=(1, 1), padding="same")
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    return replace(op, stride=(1, 1))


def _centre(op: Op, source: TensorType, axis: int) -> Fraction:
    """Returns the centre of the first window of an op, in pixels of the map it reads."""
    length = source.shape[axis + 1]
    assert length is not None
    if isinstance(op, MaxPool2D | AvgPool2D):
        kernel, dilation = op.size[axis], 1
    else:
        assert isinstance(op, Conv2D | DepthwiseConv2D)
        kernel, dilation = op.kernel[axis], op.dilation[axis]
    reach, stride = (kernel - 1) * dilation, op.stride[axis]
    out = window_size(length, kernel, stride, dilation, op.padding)
    missing = (out - 1) * stride + reach + 1 - length if op.padding == "same" else 0
    return Fraction(reach, 2) - max(missing, 0) // 2
