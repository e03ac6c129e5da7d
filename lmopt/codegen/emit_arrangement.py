"""Emitters of ops that move elements, and of sums."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lmopt.codegen.writer import Writer
from lmopt.ir.graph import Node
from lmopt.ir.ops import DepthToSpace, MirrorPad, Slice, SpaceToDepth, Sum, Transpose

_MIRRORS = {
    "reflect": schema.MirrorPadMode.REFLECT,
    "symmetric": schema.MirrorPadMode.SYMMETRIC,
}


def slice_(writer: Writer, node: Node) -> None:
    """Writes STRIDED_SLICE; the batch is taken whole."""
    op = node.op
    assert isinstance(op, Slice)
    dims = writer.graph.type(node.value).shape[1:]
    ends = [
        begin + ((length or 1) - 1) * stride + 1
        for begin, length, stride in zip(op.begin, dims, op.stride, strict=True)
    ]
    corners = {"begin": (0, *op.begin), "end": (0, *ends), "strides": (1, *op.stride)}
    inputs = [
        writer.tensor(node.inputs[0]),
        *(
            writer.constant(f"{node.name}/{key}", np.array(numbers, np.int32))
            for key, numbers in corners.items()
        ),
    ]
    version = 4 if len(dims) > 3 else writer.version(node, int8=2)
    output = writer.tensor(node.value)
    writer.operator(
        "STRIDED_SLICE", version, inputs, output, "StridedSliceOptions", beginMask=1, endMask=1
    )


def transpose(writer: Writer, node: Node) -> None:
    """Writes TRANSPOSE."""
    op = node.op
    assert isinstance(op, Transpose)
    order = writer.constant(f"{node.name}/order", np.array(op.order, np.int32))
    inputs, output = [writer.tensor(node.inputs[0]), order], writer.tensor(node.value)
    rank = len(op.order)
    least = 6 if rank > 5 else 4 if rank > 4 else 1
    version = max(least, writer.version(node, int8=2, int16=5))
    writer.operator("TRANSPOSE", version, inputs, output, "TransposeOptions")


def mirror_pad(writer: Writer, node: Node) -> None:
    """Writes MIRROR_PAD."""
    op = node.op
    assert isinstance(op, MirrorPad)
    widths = np.array([[0, 0], [op.top, op.bottom], [op.left, op.right], [0, 0]], np.int32)
    paddings = writer.constant(f"{node.name}/paddings", widths)
    inputs, output = [writer.tensor(node.inputs[0]), paddings], writer.tensor(node.value)
    version = writer.version(node, int8=2, int16=3)
    mode = _MIRRORS[op.mode]
    writer.operator("MIRROR_PAD", version, inputs, output, "MirrorPadOptions", mode=mode)


def blocks(writer: Writer, node: Node) -> None:
    """Writes SPACE_TO_DEPTH or DEPTH_TO_SPACE."""
    op = node.op
    assert isinstance(op, SpaceToDepth | DepthToSpace)
    # The reference kernels know DEPTH_TO_SPACE as version 1 alone, int8 included.
    version = writer.version(node, int8=2) if isinstance(op, SpaceToDepth) else 1
    writer.operator(
        op.kind.upper(),
        version,
        [writer.tensor(node.inputs[0])],
        writer.tensor(node.value),
        f"{type(op).__name__}Options",
        blockSize=op.block,
    )


def total(writer: Writer, node: Node) -> None:
    """Writes SUM."""
    op = node.op
    assert isinstance(op, Sum)
    axes = writer.constant(f"{node.name}/axes", np.array(op.axes, np.int32))
    inputs, output = [writer.tensor(node.inputs[0]), axes], writer.tensor(node.value)
    writer.operator("SUM", 1, inputs, output, "ReducerOptions", keepDims=op.keepdims)
